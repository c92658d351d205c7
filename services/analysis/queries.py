"""What is to be done for one slide, read from the database in one go."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, FieldRow, Lab, ModelRelease, Slide
from services.fields import UploadedField
from services.imaging.decoding.channel_files import channel_files
from services.imaging.types import Box, Microns, Pixels, UmPerPx


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
