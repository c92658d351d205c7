"""The end of a batch: its report, then its state. Whether it has ended is decided in the database alone."""

import logging
from typing import Final

from sqlalchemy import Engine, text

from services.database.audit import AuditKind, record
from services.database.models import Batch
from services.database.moves import move
from services.database.queries import OPEN_SLIDES
from services.database.session import transaction
from services.database.states import BatchMove, BatchState
from services.reporting.write import write_batch_report
from services.storage import ObjectStore

log = logging.getLogger(__name__)

_OUTCOME: Final = text(
    f"""
    select bool_or(latest.state = 'quarantined')
    from batch join slide on slide.batch_id = batch.id
    join reporting.current_analysis latest on latest.slide_key = slide.id
    where batch.id = :id and batch.state = 'analysing' and not {OPEN_SLIDES}
    group by batch.id
    """
)


def close_batch(engine: Engine, store: ObjectStore, batch_id: int) -> BatchState | None:
    """Write the reports of a batch whose slides have all ended, then close it; `None` if there is nothing to close.

    The state changes last, so that whoever sees a closed batch finds its reports. A second delivery finds it closed;
    two at once are kept apart by an advisory lock.

    Raises:
        OutageError: Postgres or the object store failed; the sweep publishes the closing again.
    """
    with transaction(engine) as guard:
        # Held until this transaction ends, however it ends.
        if not guard.execute(text("select pg_try_advisory_xact_lock(:id)"), {"id": batch_id}).scalar_one():
            log.info("batch %d is being closed by another worker", batch_id)
            return None
        return _close(engine, store, batch_id)


def _close(engine: Engine, store: ObjectStore, batch_id: int) -> BatchState | None:
    with transaction(engine) as session:
        some_quarantined = session.execute(_OUTCOME, {"id": batch_id}).scalar_one_or_none()
    if some_quarantined is None:
        return None
    step = BatchMove.CLOSE_WITH_ERRORS if some_quarantined else BatchMove.CLOSE
    write_batch_report(engine, store, batch_id, step.to)
    with transaction(engine) as session:
        if not move(session, step, Batch.id == batch_id, text(f"not {OPEN_SLIDES}")):
            return None  # a slide was requeued while the report was written; its end closes the batch
        record(session, AuditKind.BATCH_CLOSED, batch_key=batch_id, state=step.to)
    log.info("batch %d is %s", batch_id, step.to)
    return step.to
