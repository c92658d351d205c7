"""What is to be done for one slide, read from the database in one go."""

from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, FieldRow, Lab, ModelRelease, Slide
from services.fields import UploadedField
from services.imaging.decoding.channel_files import channel_files
from services.imaging.types import Box, Microns, Pixels, UmPerPx

_STARTS_LOOKED_BACK: Final = 100
# Of each lab, how many of its slides run, and when one was started last, as far as the last starts of all labs tell.
# The batches are put in order first, so that only the slides of the foremost are read. What others are taking at this
# moment is passed over, so that nobody waits for a worker that hangs.
_NEXT: Final = """
with served as (
    select b.lab_id, count(*) filter (where a.runs) as running, max(a.started_at) as last
    from (
        select slide_id, started_at, true as runs from analysis where state = 'running'
        union all (
            select slide_id, started_at, false from analysis where started_at is not null
            order by started_at desc limit :starts
        )
    ) a join slide s on s.id = a.slide_id join batch b on b.id = s.batch_id
    group by b.lab_id
)
select next.id from (
    select b.batch_key from operations.open_batch b left join served on served.lab_id = b.lab_id where b.held is null
    order by b.urgent desc, coalesce(served.running, 0), served.last nulls first, b.received_at, b.batch_key
) foremost
cross join lateral (
    select a.id from slide s join analysis a on a.slide_id = s.id
    where s.batch_id = foremost.batch_key and a.state = 'queued' and a.publish_at <= now()
    order by s.position limit 1 for update of a skip locked
) next limit 1
"""


@dataclass(frozen=True, slots=True)
class FieldWork:
    """One image to fetch. `given` are the cells that the manifest named, `None` where they are to be found.

    `named_as_channel`: by its name it may be one of several colour channels of one picture. `copy_of`: the key of an
    earlier field of the slide that has the same bytes.
    """

    id: int
    key: str
    sha256: str
    is_crop: bool
    given: tuple[Box, ...] | None
    named_as_channel: bool = False
    copy_of: str | None = None


@dataclass(frozen=True, slots=True)
class SlideWork:
    """One slide to analyse, with everything that its errors must name.

    A cell counts if at least `minimum_crop_inside_share` of its crop lies in the field; None: each does.
    """

    analysis_id: int
    batch_key: int
    lab: str
    batch_id: str
    slide_id: str
    um_per_px: UmPerPx
    received_on: date
    release_id: str
    crop_px: Pixels
    crop_um: Microns
    fields: tuple[FieldWork, ...]
    minimum_crop_inside_share: float | None = None

    def __str__(self) -> str:
        return f"lab {self.lab}, batch {self.batch_id}, slide {self.slide_id}"

    def uploaded(self, field: FieldWork) -> UploadedField:
        """The field as it is fetched."""
        return UploadedField(self.lab, self.batch_id, self.slide_id, field.key, field.sha256)


def next_in_order(session: Session) -> int | None:
    """The analysis to be started next, its row locked; `None` where none may be started now.

    Urgent batches come first. Then the lab has its turn of which the fewest slides run, of these the one that had none
    started for the longest time; within a lab the batch that was received first, in the order of its manifest.
    """
    found: int | None = session.scalar(text(_NEXT), {"starts": _STARTS_LOOKED_BACK})
    return found


def load_work(session: Session, analysis_id: int) -> SlideWork:
    """Read the work of an analysis."""
    analysis, slide, batch, lab, release = session.execute(
        select(Analysis, Slide, Batch, Lab, ModelRelease)
        .join(Slide, Analysis.slide_key == Slide.id)
        .join(Batch, Slide.batch_key == Batch.id)
        .join(Lab, Batch.lab_id == Lab.id)
        .join(ModelRelease, Analysis.release_id == ModelRelease.id)
        .where(Analysis.id == analysis_id)
    ).one()
    rows = session.scalars(select(FieldRow).where(FieldRow.slide_key == slide.id).order_by(FieldRow.position)).all()
    channels = channel_files(row.key for row in rows)
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.sha256, row.key)
    return SlideWork(
        analysis_id=analysis.id,
        batch_key=batch.id,
        lab=lab.code,
        batch_id=batch.batch_id,
        slide_id=slide.slide_id,
        um_per_px=UmPerPx(slide.um_per_px),
        received_on=batch.received_on,
        release_id=release.id,
        crop_px=Pixels(release.document["crop_px"]),
        crop_um=Microns(release.document["crop_um"]),
        fields=tuple(
            FieldWork(
                id=row.id,
                key=row.key,
                sha256=row.sha256,
                is_crop=row.kind == "crop",
                given=None if row.given_cells is None else tuple(Box(*cell["box"]) for cell in row.given_cells),
                named_as_channel=row.key in channels,
                copy_of=None if first[row.sha256] == row.key else first[row.sha256],
            )
            for row in rows
        ),
        minimum_crop_inside_share=release.document.get("minimum_crop_inside_share"),
    )
