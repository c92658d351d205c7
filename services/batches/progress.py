"""How far a batch is: what `watch`, `submit --wait` and `status` show."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from services.database.session import transaction
from services.database.states import BATCH_CLOSED, SLIDE_ENDED, BatchState, SlideState
from services.errors import PermanentError


class UnknownBatch(PermanentError):
    """No batch of that name, or several labs have one."""

    reason = "unknown_batch"


@dataclass(frozen=True, slots=True)
class SlideProgress:
    """A slide that did not simply succeed: waiting after a failure, or quarantined."""

    slide: str
    state: SlideState
    attempts: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch at one moment."""

    id: int
    lab: str
    batch: str
    state: BatchState
    slides: dict[SlideState, int]
    cells: int
    received_at: datetime
    seconds: float
    """Since the first slide was started; until the end of a closed batch."""
    troubled: tuple[SlideProgress, ...]
    problems: tuple[str, ...]
    """Why a rejected manifest was rejected."""

    @property
    def ended(self) -> int:
        """Slides that need no more work."""
        return sum(self.slides[state] for state in SLIDE_ENDED)

    @property
    def total(self) -> int:
        """Slides of the batch."""
        return sum(self.slides.values())

    @property
    def is_closed(self) -> bool:
        """Complete, complete with errors, or rejected."""
        return self.state in BATCH_CLOSED

    @property
    def cells_per_second(self) -> float | None:
        """Over the whole batch so far."""
        return self.cells / self.seconds if self.seconds > 0 and self.cells else None

    @property
    def seconds_left(self) -> float | None:
        """By the slides ended so far; `None` before the first has ended."""
        return self.seconds / self.ended * (self.total - self.ended) if self.ended and self.seconds else None


def find_batch(engine: Engine, batch_code: str, lab: str | None = None) -> int:
    """The database id of a batch by its manifest's id; `lab` is needed only where two labs use the same.

    Raises:
        UnknownBatch: none or several; the message lists what there is.
    """
    with transaction(engine) as session:
        found = session.execute(
            text(
                "select batch.id, lab.code from batch join lab on lab.id = batch.lab_id"
                " where batch_code = :code and (cast(:lab as text) is null or lab.code = :lab) order by lab.code"
            ),
            {"code": batch_code, "lab": lab},
        ).all()
        if len(found) == 1:
            return int(found[0][0])
        if found:
            raise UnknownBatch(f"batch {batch_code} exists in labs {', '.join(f[1] for f in found)}: say --lab")
        latest = session.execute(
            text(
                "select lab.code || '/' || batch_code from batch join lab on lab.id = batch.lab_id"
                " order by received_at desc limit 5"
            )
        ).scalars()
        raise UnknownBatch(
            f"no batch {batch_code}{f' of lab {lab}' if lab else ''}; the latest are: {', '.join(latest) or 'none'}"
        )


def batch_progress(engine: Engine, batch_id: int) -> BatchProgress:
    """How far the batch is."""
    with transaction(engine) as session:
        row = session.execute(
            text(
                "select batch.id, lab.code as lab, batch_code, batch.state, received_at, closed_at, problems,"
                " coalesce(extract(epoch from coalesce(closed_at, now()) - (select min(started_at) from analysis"
                "  join slide on slide.id = slide_id where slide.batch_id = batch.id)), 0)::float as seconds"
                " from batch join lab on lab.id = batch.lab_id where batch.id = :id"
            ),
            {"id": batch_id},
        ).one()
        slides = session.execute(
            text(
                "select slide.slide_code, latest.state, cells_classified, attempts, reason, detail"
                " from slide left join reporting.current_analysis latest on latest.slide_key = slide.id"
                " where slide.batch_id = :id order by slide.position"
            ),
            {"id": batch_id},
        ).all()
    counts: dict[SlideState, int] = dict.fromkeys(SlideState, 0)
    for slide in slides:
        counts[SlideState(slide.state or SlideState.QUEUED)] += 1
    return BatchProgress(
        id=row.id,
        lab=row.lab,
        batch=row.batch_code,
        state=BatchState(row.state),
        slides=counts,
        cells=sum(slide.cells_classified or 0 for slide in slides),
        received_at=row.received_at,
        seconds=row.seconds,
        troubled=tuple(
            SlideProgress(s.slide_code, SlideState(s.state), s.attempts, s.reason, s.detail or "")
            for s in slides
            if s.reason and s.state != SlideState.DONE
        ),
        problems=tuple(f"{p['path']}: {p['message']} ({p['reason']})" for p in row.problems),
    )
