"""What only Postgres knows, as metrics: asked whenever Prometheus asks, and never for longer than Prometheus waits."""

import logging
import threading
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from services import metrics
from services.batches.queries import WorkNow, work_now
from services.database.queries import months_ahead
from services.database.session import transaction
from services.deliveries.queries import deliveries_now
from services.errors import MorphbatchError
from services.metrics import DatabaseGauge
from services.releases.queries import active_release

log = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""Prometheus gives up on a target after ten seconds, if nobody has told it otherwise."""

Samples = list[tuple[DatabaseGauge, dict[tuple[str, ...], float]]]


class DatabaseMetrics(Collector):
    """Asks from a thread of its own: a Postgres that takes a connection and then hangs must not hold up the answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._asking: threading.Thread | None = None
        self._found: Samples | None = None

    def describe(self) -> list[Metric]:
        """Nothing: so that registering it asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now; of a Postgres that does not answer only that it does not."""
        with self._turn:
            asking = self._asking
            if asking is None or not asking.is_alive():
                self._found = None
                asking = self._asking = threading.Thread(target=self._ask, name="database-metrics", daemon=True)
                asking.start()
        asking.join(PATIENCE_S)
        found = None if asking.is_alive() else self._found
        yield _family(metrics.DATABASE_UP, {(): float(found is not None)})
        for gauge, values in found or ():
            yield _family(gauge, values)

    def _ask(self) -> None:
        try:
            with transaction(self._engine) as session:
                now = work_now(session, patience_s=PATIENCE_S)
                missing = sum(not covered for covered in months_ahead(session, 2).values())
                release = active_release(session)
                deliveries = deliveries_now(session)
        except MorphbatchError as error:
            log.warning("no metrics of the database: %s", error)
            return
        self._found = [
            *_of_work(now),
            (metrics.DELIVERIES_OPEN, {("waiting",): deliveries.waiting, ("stopped",): deliveries.stopped}),
            (metrics.OLDEST_DELIVERY, {(): deliveries.oldest_s}),
            (metrics.PARTITIONS_MISSING, {(): missing}),
            (metrics.RELEASE, {(release.release_id, release.kind): 1.0} if release else {}),
        ]


def _of_work(now: WorkNow) -> Samples:
    return [
        (metrics.BATCHES, _by_one_label(now.batches)),
        (metrics.UNCLOSED, {(): now.unclosed}),
        (metrics.SLIDES, _by_one_label(now.slides)),
        (metrics.QUARANTINED, _by_one_label(now.quarantined)),
        (metrics.WAITING, _by_one_label(now.waiting)),
        (metrics.OLDEST, _by_one_label(now.oldest_s)),
        (metrics.OUTSTANDING_FIELDS, {(): now.outstanding_fields}),
        (metrics.EXPIRED, {(): now.expired_leases}),
    ]


def _by_one_label(values: dict[str, float]) -> dict[tuple[str, ...], float]:
    return {(label,): value for label, value in values.items()}


def _family(gauge: DatabaseGauge, values: dict[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.documentation, labels=gauge.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
