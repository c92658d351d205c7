"""Ends a batch before its time: what runs ends, what waits is not started, and its report says so."""

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from services.database.audit import AuditKind, record
from services.database.models import Analysis, Batch, Slide
from services.database.moves import move
from services.database.queries import NO_SLIDE_IS_OPEN
from services.database.session import transaction
from services.database.states import BatchState, Held, SlideMove
from services.errors import PermanentError


class NotCancellable(PermanentError):
    """All slides of the batch have ended, or it was cancelled before."""

    reason = "not_cancellable"


def cancel_batch(engine: Engine, batch_key: int, *, by: str, why: str) -> int:
    """Start no slide of the batch any more, for good; returns how many are thereby cancelled.

    Slides that run end as ever, and their results count. The sweep has the batch closed after the last of them.

    Raises:
        NotCancellable: it has ended, or was cancelled before.
    """
    with transaction(engine) as session:
        batch = session.scalars(select(Batch).where(Batch.id == batch_key).with_for_update()).one()
        if batch.cancelled_at is not None:
            raise NotCancellable(
                f"batch {batch.batch_id} was cancelled at {batch.cancelled_at:%Y-%m-%d %H:%M} UTC by"
                f" {batch.cancelled_by}: {batch.cancel_why}"
            )
        ended = select(Batch.id).where(Batch.id == batch_key, NO_SLIDE_IS_OPEN)
        if batch.state != BatchState.ANALYSING or session.scalar(ended) is not None:
            raise NotCancellable(
                f"batch {batch.batch_id} has ended: no slide of it waits or runs. To take its results out of every"
                " count, void it"
            )
        batch.cancelled_at, batch.cancelled_by, batch.cancel_why, batch.close_at = func.now(), by, why, func.now()
        session.flush()
        slides = end_waiting(session)
        record(session, AuditKind.BATCH_CANCELLED, batch_key=batch_key, by=by, why=why, slides=slides)
    return slides


def end_waiting(session: Session) -> int:
    """End the queued slides of cancelled batches, also those that a worker puts back later; returns how many."""
    cancelled = (
        select(Slide.id)
        .join(Batch, Batch.id == Slide.batch_key)
        .where(Batch.state == BatchState.ANALYSING, Batch.cancelled_at.is_not(None))
    )
    said = (
        select(func.concat("cancelled by ", Batch.cancelled_by, ": ", Batch.cancel_why))
        .join(Slide, Slide.batch_key == Batch.id)
        .where(Slide.id == Analysis.slide_key)
        .correlate(Analysis)
        .scalar_subquery()
    )
    ended = move(
        session,
        SlideMove.CANCEL,
        Analysis.slide_key.in_(cancelled),
        reason=Held.BATCH_CANCELLED.value,
        detail=said,
    )
    return len(ended)
