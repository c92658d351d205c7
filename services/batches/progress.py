"""How far a batch is: what `watch`, `submit --wait` and `status` show."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from services.batches.queries import BatchRow, batch_row, batches_called, latest_batches, slide_rows, work_by_state
from services.database.session import transaction
from services.database.states import BATCH_CLOSED, SLIDE_ENDED, BatchState, Held, SlideState
from services.errors import PermanentError


class UnknownBatch(PermanentError):
    """No batch has this id, or several labs have one."""

    reason = "unknown_batch"


@dataclass(frozen=True, slots=True)
class SlideProgress:
    """A slide that did not simply succeed: waiting after a failure, or quarantined."""

    slide_id: str
    state: SlideState
    attempts: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch at one moment."""

    batch_key: int
    lab: str
    batch_id: str
    state: BatchState
    slides: dict[SlideState, int]
    cells: int
    received_at: datetime
    seconds: float
    """Since the first slide was started; until the end of a closed batch."""
    troubled: tuple[SlideProgress, ...]
    problems: tuple[str, ...]
    """Why a rejected manifest was rejected."""
    urgent: bool
    holds: str | None
    """Why slides of it that wait are not started now."""

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
        """Complete, complete with errors, rejected or cancelled."""
        return self.state in BATCH_CLOSED

    @property
    def cells_per_second(self) -> float | None:
        """Over the whole batch so far."""
        return self.cells / self.seconds if self.seconds > 0 and self.cells else None

    @property
    def seconds_left(self) -> float | None:
        """By the slides ended so far; `None` before the first has ended."""
        return self.seconds / self.ended * (self.total - self.ended) if self.ended and self.seconds else None


def find_batch(engine: Engine, batch_id: str, lab: str | None = None) -> int:
    """The key of the batch that its manifest calls `batch_id`; `lab` is required only where two labs use the same.

    Raises:
        UnknownBatch: none or several; the message lists what there is.
    """
    with transaction(engine) as session:
        found = batches_called(session, batch_id, lab)
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise UnknownBatch(f"batch {batch_id} exists in labs {', '.join(found)}: name one with --lab")
        latest = ", ".join(latest_batches(session, 5))
    raise UnknownBatch(f"no batch {batch_id}{f' of lab {lab}' if lab else ''}; the latest are: {latest or 'none'}")


def batch_progress(engine: Engine, batch_key: int) -> BatchProgress:
    """How far the batch is."""
    with transaction(engine) as session:
        batch, slides = batch_row(session, batch_key), slide_rows(session, batch_key)
    counts: dict[SlideState, int] = dict.fromkeys(SlideState, 0)
    for slide in slides:
        counts[SlideState(slide.state or SlideState.QUEUED)] += 1
    return BatchProgress(
        batch_key=batch_key,
        lab=batch.lab,
        batch_id=batch.batch_id,
        state=BatchState(batch.state),
        slides=counts,
        cells=sum(slide.cells_classified or 0 for slide in slides),
        received_at=batch.received_at,
        seconds=batch.seconds,
        troubled=tuple(
            SlideProgress(s.slide_id, SlideState(s.state), s.attempts or 0, s.reason, s.detail or "")
            for s in slides
            if s.state and s.reason and s.state != SlideState.DONE
        ),
        problems=tuple(f"{p['path']}: {p['message']} ({p['reason']})" for p in batch.problems),
        urgent=batch.urgent,
        holds=_holds(batch),
    )


def _holds(batch: BatchRow) -> str | None:
    if batch.held in (Held.LAB_PAUSED, Held.BATCH_PAUSED):
        what, command = ("its lab", batch.lab) if batch.held == Held.LAB_PAUSED else ("it", str(batch))
        return (
            f"{what} is paused since {batch.paused_at:%Y-%m-%d %H:%M} UTC by {batch.paused_by}: {batch.pause_why};"
            f" `morphbatch resume {command}` lets it go on"
        )
    if batch.held == Held.OUTSIDE_WINDOW:
        return f"slides of lab {batch.lab} are started from {batch.window} by its clock"
    return None if batch.held is None else "it is cancelled"


def count_work(engine: Engine) -> dict[str, dict[str, int]]:
    """How many `batches` and `slides` are in which state, what holds slides back (`held`), and what they are `waiting`
    for after they were tried.

    Nothing of a database that is not migrated yet.
    """
    with transaction(engine) as session:
        return work_by_state(session)
