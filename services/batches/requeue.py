"""Sends slides of a closed or running batch round again, after a person has mended what was wrong."""

from collections.abc import Sequence

from sqlalchemy import Engine, func, select

from services.database.audit import AuditKind, record
from services.database.models import Analysis, Batch, ModelRelease, Slide
from services.database.moves import move, move_or_begin
from services.database.queries import CURRENT_ANALYSIS
from services.database.session import transaction
from services.database.states import SLIDE_ENDED, BatchMove, SlideMove, SlideState
from services.errors import PermanentError


class NothingToRequeue(PermanentError):
    """No slide of the batch is in a state that can be requeued."""

    reason = "nothing_to_requeue"


def requeue(engine: Engine, batch_id: int, slide_codes: Sequence[str] = (), *, by: str) -> list[str]:
    """Queue quarantined slides of a batch again, or the named ones in any ended state; returns their codes.

    They are analysed under the active release; what they had under another stays on record.

    Raises:
        NothingToRequeue: no slide fits; the message says why.
    """
    states = sorted(SLIDE_ENDED) if slide_codes else [SlideState.QUARANTINED]
    with transaction(engine) as session:
        session.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())
        active = select(ModelRelease.id).where(ModelRelease.active).scalar_subquery()
        again = (
            select(Analysis.slide_id, func.coalesce(active, Analysis.release_id).label("release_id"))
            .join(CURRENT_ANALYSIS, CURRENT_ANALYSIS.c.analysis_id == Analysis.id)
            .join(Slide, Slide.id == Analysis.slide_id)
            .where(Slide.batch_id == batch_id, Analysis.state.in_(states))
        )
        if slide_codes:
            again = again.where(Slide.slide_code.in_(slide_codes))
        queued = [analysis.slide_id for analysis in move_or_begin(session, SlideMove.REQUEUE, again)]
        codes = sorted(session.scalars(select(Slide.slide_code).where(Slide.id.in_(queued))))
        unknown = sorted(set(slide_codes) - set(codes))
        if unknown:
            raise NothingToRequeue(f"no ended slide called {', '.join(unknown)} in this batch; nothing was requeued")
        if not codes:
            raise NothingToRequeue("no slide of this batch is quarantined; name slides to run them again anyway")
        move(session, BatchMove.REOPEN, Batch.id == batch_id)  # unless it is still being analysed
        record(session, AuditKind.SLIDES_REQUEUED, batch_key=batch_id, slides=codes, by=by)
    return codes
