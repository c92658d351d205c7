"""The promise behind the hints: finds in Postgres whatever should be moving and is not."""

import logging
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, func, text, update

from services import metrics
from services.batches.cancelling import end_waiting
from services.batches.queries import may_start
from services.database.faults import DatabaseUnavailable
from services.database.models import Analysis, Batch
from services.database.moves import move
from services.database.queries import NO_SLIDE_IS_OPEN
from services.database.session import transaction
from services.database.states import BatchState, SlideMove, SlideState
from services.dispatch import BrokerUnavailable, Publisher
from services.releases.activation import follow_active_release

log = logging.getLogger(__name__)

# Enough for the workers until the next sweep, seconds later; and a megabyte or so in Redis, however long the night is.
_MOST_ANNOUNCED: Final = 1000


class Sweep:
    """The sweeps of one process. It remembers an outage of Postgres, in which nobody could renew a lease."""

    def __init__(self, publisher: Publisher, republish_s: int, lease_s: int) -> None:
        self._publisher = publisher
        self._republish_s = republish_s
        self._lease_s = lease_s
        self._after_outage = False

    def run(self, engine: Engine) -> None:
        """Sweep once; the first time after an outage no lease is ended, and those who hold one may renew it.

        Raises:
            DatabaseUnavailable: Postgres could not be asked.
            BrokerUnavailable: what could not be published is due again at the next sweep.
        """
        try:
            if self._after_outage:
                _renew_expired_leases(engine, self._lease_s)
                self._after_outage = False
            sweep_database(engine, self._publisher, self._republish_s)
        except DatabaseUnavailable:
            self._after_outage = True
            raise
        metrics.SWEEP_SUCCESS.labels("database").set_to_current_time()


def sweep_database(engine: Engine, publisher: Publisher, republish_s: int) -> None:
    """Queue slides again whose worker is gone, end those of cancelled batches, announce slides and closings.

    Raises:
        BrokerUnavailable: what could not be published is due again at the next sweep.
    """
    _end_expired_leases(engine)
    with transaction(engine) as session:
        end_waiting(session)  # what was running when its batch was cancelled, and was put back since
    if moved := follow_active_release(engine):
        log.info("%d queued slides moved to the active release", moved)
    publish_due(engine, publisher)
    _publish_closings(engine, publisher, republish_s)


def publish_due(engine: Engine, publisher: Publisher) -> int:
    """Announce slides that may be started, as far as messages are missing; returns how many were sent.

    Called right after a registration, too. Two at once may send some twice, which workers pass over.

    Raises:
        BrokerUnavailable: what could not be announced is so at the next sweep.
    """
    with transaction(engine) as session:
        startable = may_start(session, _MOST_ANNOUNCED)
    if not startable:
        return 0
    missing = startable[publisher.slides_announced() :]
    for analysis_id in missing:
        publisher.analyse_slide(analysis_id)
        metrics.SLIDES_PUBLISHED.inc()
    return len(missing)


def publish_now(engine: Engine, publisher: Publisher) -> BrokerUnavailable | None:
    """Announce slides after a change, or return why that could not be: then the sweep does it later."""
    try:
        publish_due(engine, publisher)
    except BrokerUnavailable as error:
        return error
    return None


def _renew_expired_leases(engine: Engine, lease_s: int) -> None:
    with transaction(engine) as session:
        session.execute(
            update(Analysis)
            .where(Analysis.state == SlideState.RUNNING, Analysis.lease_until < func.now())
            .values(lease_until=func.now() + timedelta(seconds=lease_s)),
            execution_options={"synchronize_session": False},
        )


def _end_expired_leases(engine: Engine) -> None:
    with transaction(engine) as session:
        expired = move(
            session,
            SlideMove.GIVE_BACK,
            Analysis.lease_until < func.now(),
            publish_at=func.now(),
            reason="lease_expired",
            detail="the worker stopped renewing its lease (killed, or disconnected)",
        )
        gone = [(analysis.id, analysis.attempts) for analysis in expired]
    metrics.LEASES_EXPIRED.inc(len(gone))
    for analysis_id, attempt in gone:
        log.warning("analysis %d: the worker of attempt %d is gone; queued again", analysis_id, attempt)


def _publish_closings(engine: Engine, publisher: Publisher, republish_s: int) -> None:
    overdue = func.coalesce(Batch.close_at, func.now()) <= func.now()
    with transaction(engine) as session:
        due = session.scalars(
            update(Batch)
            .where(Batch.state == BatchState.ANALYSING, overdue, NO_SLIDE_IS_OPEN)
            .values(close_at=func.now() + timedelta(seconds=republish_s))
            .returning(Batch.id),
            execution_options={"synchronize_session": False},
        ).all()
    for batch_key in due:
        publisher.close_batch(batch_key)


def make_partitions(engine: Engine) -> None:
    """Make the partitions of `cell` for this month and the two that follow."""
    with transaction(engine) as session:
        session.execute(text("select make_cell_partitions(current_date, 3)"))
