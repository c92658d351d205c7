"""Sends slides of a closed or running batch round again, after a person has mended what was wrong."""

from collections.abc import Sequence

from sqlalchemy import Engine, text

from services.database.models import AuditEvent
from services.database.session import transaction
from services.database.states import SLIDE_ENDED, SlideState
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
        session.execute(text("select id from batch where id = :id for update"), {"id": batch_id})
        queued = session.execute(
            text(
                "with again as ("
                " select slide.id, slide_code,"
                "  coalesce((select id from model_release where active), release_id) as release"
                " from slide join reporting.current_analysis latest on latest.slide_key = slide.id"
                " where slide.batch_id = :batch and latest.state = any(:states)"
                " and (:every or slide_code = any(:codes))"
                "), queued as ("
                " insert into analysis (slide_id, release_id) select id, release from again"
                " on conflict (slide_id, release_id) do update set state = 'queued', attempts = 0, reason = null,"
                "  detail = null, queued_at = now(), publish_at = now()"
                " where analysis.state not in ('queued', 'running')"
                " returning slide_id)"
                " select slide_code from again join queued on queued.slide_id = again.id"
            ),
            {"batch": batch_id, "states": states, "every": not slide_codes, "codes": list(slide_codes)},
        )
        codes = sorted(queued.scalars())
        unknown = sorted(set(slide_codes) - set(codes))
        if unknown:
            raise NothingToRequeue(f"no ended slide called {', '.join(unknown)} in this batch; nothing was requeued")
        if not codes:
            raise NothingToRequeue("no slide of this batch is quarantined; name slides to run them again anyway")
        session.execute(
            text(
                "update batch set state = 'analysing', closed_at = null, close_at = null"
                " where id = :id and state in ('complete', 'complete_with_errors')"
            ),
            {"id": batch_id},
        )
        session.add(AuditEvent(kind="slides_requeued", batch_id=batch_id, detail={"slides": codes, "by": by}))
    return codes
