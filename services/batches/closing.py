"""The end of a batch: its report, then its state. Whether it has ended is decided in the database alone."""

import logging

from sqlalchemy import Engine, func, select

from services import metrics
from services.batches.queries import closing_of, name_of
from services.batches.same_pictures import find_same_pictures
from services.database.audit import AuditKind, record
from services.database.models import Batch
from services.database.moves import move
from services.database.queries import NO_SLIDE_IS_OPEN
from services.database.session import transaction
from services.database.states import BatchMove, BatchState
from services.deliveries.outbox import outgoing, put_on_record
from services.reporting.write import write_batch_report
from services.storage import ObjectStore
from services.tracing import traced

log = logging.getLogger(__name__)


def close_batch(engine: Engine, store: ObjectStore, batch_key: int) -> BatchState | None:
    """Write the reports of a batch whose slides have all ended, then close it; `None` if there is nothing to close.

    The state changes last, so that whoever sees a closed batch finds its reports. A second delivery finds it closed;
    two at once are kept apart by an advisory lock.

    Raises:
        OutageError: Postgres or the object store failed; the sweep publishes the closing again.
    """
    with transaction(engine) as guard:
        # Held until this transaction ends, however it ends.
        if not guard.scalar(select(func.pg_try_advisory_xact_lock(batch_key))):
            log.info("batch %d is being closed by another worker", batch_key)
            return None
        return _close(engine, store, batch_key)


def _close(engine: Engine, store: ObjectStore, batch_key: int) -> BatchState | None:
    with transaction(engine) as session:
        step = closing_of(session, batch_key)
        if step is None:
            return None
        lab, batch_id = name_of(session, batch_key)
    with traced("close", lab, batch_id, state=step.to):
        return _written(engine, store, batch_key, lab, batch_id, step)


def _written(
    engine: Engine, store: ObjectStore, batch_key: int, lab: str, batch_id: str, step: BatchMove
) -> BatchState | None:
    find_same_pictures(engine, batch_key)
    with traced("report", lab, batch_id):
        report = write_batch_report(engine, store, batch_key, step.to)
    messages = outgoing(engine, store, batch_key, report.lab, report.batch_id, report.files)
    with transaction(engine) as session:
        if not move(session, step, Batch.id == batch_key, NO_SLIDE_IS_OPEN):
            return None  # a slide was requeued while the report was written; its end closes the batch
        record(
            session,
            AuditKind.BATCH_CLOSED,
            batch_key=batch_key,
            state=step.to,
            revision=report.revision,
            issued_at=None if report.issued_at is None else report.issued_at.isoformat(),
            replaces=report.replaces,
            reason=report.reason,
        )
        if report.revision is not None:
            put_on_record(session, batch_key, report.revision, messages)
    metrics.BATCHES_CLOSED.labels(step.to).inc()
    log.info("batch %d is %s", batch_key, step.to)
    return step.to
