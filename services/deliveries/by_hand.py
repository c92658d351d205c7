"""What an operator does about deliveries that are stopped."""

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.database.audit import AuditKind, record
from services.database.models import Delivery
from services.database.moves import move
from services.database.session import transaction
from services.database.states import DeliveryMove
from services.deliveries.queries import DeliveryRow, open_deliveries, superseded
from services.errors import PermanentError


class NotStopped(PermanentError):
    """One of the deliveries is not stopped, or must not be sent any more."""

    reason = "delivery_not_stopped"


def deliveries(engine: Engine) -> list[DeliveryRow]:
    """Those that are stopped, and then those that wait."""
    with transaction(engine) as session:
        return open_deliveries(session)


def resend(engine: Engine, delivery_ids: Sequence[int], *, by: str) -> list[int]:
    """Have these stopped deliveries sent again, or all that are stopped and not replaced if none is named.

    Returns their numbers. Each is sent before what was made after it for the same target.

    Raises:
        NotStopped: one is not stopped, or its target has a later revision of the same, which it would replace there.
    """
    with transaction(engine) as session:
        old = {row.delivery_id for row in superseded(session, delivery_ids or _stopped(session))}
        if delivery_ids and old:
            named = ", ".join(map(str, sorted(old)))
            raise NotStopped(
                f"a later revision of delivery {named} is delivered or waits: the old result would replace it; drop it"
                " (`morphbatch deliveries drop`)"
            )
        wanted = delivery_ids or [number for number in _stopped(session) if number not in old]
        _make(session, DeliveryMove.RESEND, wanted)
        if wanted:
            record(session, AuditKind.DELIVERIES_RESENT, deliveries=sorted(wanted), by=by)
        return sorted(wanted)


def drop(engine: Engine, delivery_ids: Sequence[int], *, by: str, why: str) -> None:
    """Give these stopped deliveries up: what they hold is never sent.

    Raises:
        NotStopped: one of them is not stopped.
    """
    with transaction(engine) as session:
        _make(session, DeliveryMove.DROP, delivery_ids)
        record(session, AuditKind.DELIVERIES_DROPPED, deliveries=sorted(delivery_ids), by=by, why=why)


def _stopped(session: Session) -> list[int]:
    return [row.delivery_id for row in open_deliveries(session, stopped_only=True)]


def _make(session: Session, step: DeliveryMove, delivery_ids: Sequence[int]) -> None:
    """All of them, or none."""
    moved = {delivery.id for delivery in move(session, step, Delivery.id.in_(delivery_ids))}
    if missing := sorted(set(delivery_ids) - moved):
        raise NotStopped(
            f"delivery {', '.join(map(str, missing))} is not stopped; `morphbatch deliveries` lists those that are"
        )
