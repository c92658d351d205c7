"""The promise behind the hints: finds in Postgres whatever should be moving and is not."""

import logging
from datetime import timedelta

from sqlalchemy import Engine, func, text, update

from services import metrics
from services.database.faults import DatabaseUnavailable
from services.database.models import Analysis, Batch
from services.database.moves import move
from services.database.queries import NO_SLIDE_IS_OPEN
from services.database.session import transaction
from services.database.states import BatchState, SlideMove, SlideState
from services.dispatch import BrokerUnavailable, Publisher
from services.releases.activation import follow_active_release

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 2000


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
    """Queue slides again whose worker is gone, and publish every slide and closing that is due.

    Raises:
        BrokerUnavailable: what could not be published is due again at the next sweep.
    """
    _end_expired_leases(engine)
    if moved := follow_active_release(engine):
        log.info("%d queued slides moved to the active release", moved)
    publish_due(engine, publisher, republish_s)
    _publish_closings(engine, publisher, republish_s)


def publish_due(engine: Engine, publisher: Publisher, republish_s: int) -> int:
    """Publish the queued slides that are due; returns how many. Called right after a registration, too.

    The next due time is committed before publishing, so that two sweeps never publish the same slide.
    """
    with transaction(engine) as session:
        due = session.scalars(
            text(
                "update analysis set publish_at = now() + make_interval(secs => :later) where id in ("
                " select id from analysis where state = 'queued' and publish_at <= now()"
                " order by id limit :most for update skip locked) returning id"
            ),
            {"later": republish_s, "most": _MOST_AT_ONCE},
        ).all()
    for sent, analysis_id in enumerate(sorted(due)):
        try:
            publisher.analyse_slide(analysis_id)
            metrics.SLIDES_PUBLISHED.inc()
        except BrokerUnavailable:
            with transaction(engine) as session:
                session.execute(
                    text("update analysis set publish_at = now() where id = any(:ids)"), {"ids": sorted(due)[sent:]}
                )
            raise
    return len(due)


def publish_now(engine: Engine, publisher: Publisher, republish_s: int) -> BrokerUnavailable | None:
    """Publish what is due after a change, or return why that could not be: then the sweep does it later."""
    try:
        publish_due(engine, publisher, republish_s)
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
