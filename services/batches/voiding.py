"""Takes a batch out of every count, and back: nothing of it is deleted, and its report says so in its next revision."""

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from services.database.audit import AuditKind, record
from services.database.models import Batch
from services.database.moves import move
from services.database.session import transaction
from services.database.states import BatchMove, BatchState
from services.errors import PermanentError


class NotVoidable(PermanentError):
    """The batch is rejected, or it is already as it was asked to be."""

    reason = "not_voidable"


def void_batch(engine: Engine, batch_key: int, *, by: str, why: str) -> None:
    """Have nothing of the batch count from now on. Slides that are under way end as ever, and do not count either.

    Raises:
        NotVoidable: it was voided before, or was rejected and holds nothing.
    """
    with transaction(engine) as session:
        batch = _locked(session, batch_key)
        if batch.state == BatchState.REJECTED:
            raise NotVoidable(f"batch {batch.batch_id} was rejected: nothing of it counts")
        if batch.voided_at is not None:
            raise NotVoidable(
                f"batch {batch.batch_id} was voided at {batch.voided_at:%Y-%m-%d %H:%M} UTC by {batch.voided_by}:"
                f" {batch.void_why}"
            )
        batch.voided_at, batch.voided_by, batch.void_why = func.now(), by, why
        _changed(session, batch, AuditKind.BATCH_VOIDED, by, why)


def restore_batch(engine: Engine, batch_key: int, *, by: str, why: str) -> None:
    """Have a voided batch count again.

    Raises:
        NotVoidable: it is not voided.
    """
    with transaction(engine) as session:
        batch = _locked(session, batch_key)
        if batch.voided_at is None:
            raise NotVoidable(f"batch {batch.batch_id} is not voided: it counts")
        batch.voided_at = batch.voided_by = batch.void_why = None
        _changed(session, batch, AuditKind.BATCH_RESTORED, by, why)


def _locked(session: Session, batch_key: int) -> Batch:
    return session.scalars(select(Batch).where(Batch.id == batch_key).with_for_update()).one()


def _changed(session: Session, batch: Batch, kind: AuditKind, by: str, why: str) -> None:
    session.flush()
    # The sweep has it closed again, which writes its report; a batch that is still open is closed in its time.
    move(session, BatchMove.REOPEN, Batch.id == batch.id, close_at=func.now())
    record(session, kind, batch_key=batch.id, by=by, why=why)
