"""Holds the slides of a lab or of one batch back, and lets them go again. What runs goes on."""

from sqlalchemy import Engine, func, select

from services.database.audit import AuditKind, record
from services.database.models import Batch, Lab
from services.database.session import transaction
from services.database.states import BATCH_CLOSED
from services.errors import PermanentError


class NotPausable(PermanentError):
    """There is no such lab, the batch has ended, or it is already as it was asked to be."""

    reason = "not_pausable"


def pause_lab(engine: Engine, lab: str, *, by: str, why: str) -> None:
    """Start no slide of the lab until it is resumed, urgent ones and those of later batches among them.

    Raises:
        NotPausable: there is no such lab, or it is paused.
    """
    with transaction(engine) as session:
        row = session.scalars(select(Lab).where(Lab.code == lab).with_for_update()).one_or_none()
        _pause(row, f"lab {lab}", by, why)
        record(session, AuditKind.LAB_PAUSED, lab=lab, by=by, why=why)


def resume_lab(engine: Engine, lab: str, *, by: str, why: str | None = None) -> None:
    """Have the lab's slides started again.

    Raises:
        NotPausable: there is no such lab, or it is not paused.
    """
    with transaction(engine) as session:
        row = session.scalars(select(Lab).where(Lab.code == lab).with_for_update()).one_or_none()
        _resume(row, f"lab {lab}")
        record(session, AuditKind.LAB_RESUMED, lab=lab, by=by, why=why)


def pause_batch(engine: Engine, batch_key: int, *, by: str, why: str) -> None:
    """Start no slide of the batch until it is resumed.

    Raises:
        NotPausable: it has ended, or is paused.
    """
    with transaction(engine) as session:
        batch = session.scalars(select(Batch).where(Batch.id == batch_key).with_for_update()).one()
        if batch.state in BATCH_CLOSED:
            raise NotPausable(f"batch {batch.batch_id} is {batch.state}: no slide of it waits")
        _pause(batch, f"batch {batch.batch_id}", by, why)
        record(session, AuditKind.BATCH_PAUSED, batch_key=batch_key, by=by, why=why)


def resume_batch(engine: Engine, batch_key: int, *, by: str, why: str | None = None) -> None:
    """Have the batch's slides started again.

    Raises:
        NotPausable: it is not paused.
    """
    with transaction(engine) as session:
        batch = session.scalars(select(Batch).where(Batch.id == batch_key).with_for_update()).one()
        _resume(batch, f"batch {batch.batch_id}")
        record(session, AuditKind.BATCH_RESUMED, batch_key=batch_key, by=by, why=why)


def _pause(row: Lab | Batch | None, name: str, by: str, why: str) -> None:
    row = _there(row, name)
    if row.paused_at is not None:
        raise NotPausable(
            f"{name} was paused at {row.paused_at:%Y-%m-%d %H:%M} UTC by {row.paused_by}: {row.pause_why}"
        )
    row.paused_at, row.paused_by, row.pause_why = func.now(), by, why


def _resume(row: Lab | Batch | None, name: str) -> None:
    row = _there(row, name)
    if row.paused_at is None:
        raise NotPausable(f"{name} is not paused")
    row.paused_at = row.paused_by = row.pause_why = None


def _there(row: Lab | Batch | None, name: str) -> Lab | Batch:
    if row is None:
        raise NotPausable(f"there is no {name}: `morphbatch lab list` shows them")
    return row
