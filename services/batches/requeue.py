"""Sends slides of a closed or running batch round again, after a person has fixed what was wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, literal, select

from services.batches.due import publish_now
from services.database.audit import AuditKind, record
from services.database.models import Analysis, Batch, Slide
from services.database.moves import begin_next, move
from services.database.queries import LATEST_ANALYSIS, active_release_id
from services.database.session import transaction
from services.database.states import SLIDE_ENDED, BatchMove, SlideMove, SlideState
from services.dispatch import BrokerUnavailable, Publisher
from services.errors import PermanentError


class NothingToRequeue(PermanentError):
    """No slide of the batch is in a state that can be requeued."""

    reason = "nothing_to_requeue"


@dataclass(frozen=True, slots=True)
class Requeued:
    """The slides that run again; `unpublished` is why their messages wait for the sweep, if they do."""

    slide_ids: tuple[str, ...]
    unpublished: BrokerUnavailable | None


def run_again(
    engine: Engine,
    publisher: Publisher,
    batch_key: int,
    slide_ids: Sequence[str],
    *,
    by: str,
    why: str | None,
) -> Requeued:
    """Requeue slides of a batch (see `requeue`) and publish them.

    Raises:
        NothingToRequeue: no slide fits; the message says why.
    """
    queued = requeue(engine, batch_key, slide_ids, by=by, why=why)
    return Requeued(tuple(queued), publish_now(engine, publisher))


def requeue(
    engine: Engine, batch_key: int, slide_ids: Sequence[str] = (), *, by: str, why: str | None = None
) -> list[str]:
    """Begin another version of the quarantined slides of a batch, or of the named ones that ended; returns their ids.

    They are analysed under the active release. What they had stays on record, and counts until there is a new result.

    Raises:
        NothingToRequeue: no slide fits; the message says why.
    """
    states = sorted(SLIDE_ENDED) if slide_ids else [SlideState.QUARANTINED]
    with transaction(engine) as session:
        batch = session.scalars(select(Batch).where(Batch.id == batch_key).with_for_update()).one()
        if batch.cancelled_at is not None:
            raise NothingToRequeue(
                f"batch {batch.batch_id} was cancelled by {batch.cancelled_by}: {batch.cancel_why}; to have it analysed"
                " after all, send it under another batch_id"
            )
        active = active_release_id(session)
        again = (
            select(
                Analysis.slide_key,
                func.coalesce(active, Analysis.release_id).label("release_id"),
                literal(by).label("asked_by"),
                literal(why).label("why"),
            )
            .join(LATEST_ANALYSIS, LATEST_ANALYSIS.c.analysis_id == Analysis.id)
            .join(Slide, Slide.id == Analysis.slide_key)
            .where(Slide.batch_key == batch_key, Analysis.state.in_(states))
        )
        if slide_ids:
            again = again.where(Slide.slide_id.in_(slide_ids))
        begun = [analysis.slide_key for analysis in begin_next(session, SlideMove.QUEUE, again)]
        queued = sorted(session.scalars(select(Slide.slide_id).where(Slide.id.in_(begun))))
        unknown = sorted(set(slide_ids) - set(queued))
        if unknown:
            raise NothingToRequeue(f"there is no ended slide {', '.join(unknown)} in this batch; nothing was requeued")
        if not queued:
            raise NothingToRequeue("no slide of this batch is quarantined; name slides to run them again anyway")
        move(session, BatchMove.REOPEN, Batch.id == batch_key)  # unless it is still being analysed
        record(session, AuditKind.SLIDES_REQUEUED, batch_key=batch_key, slides=queued, by=by, why=why)
    return queued
