"""Every metric that the service exports: its name, its labels and what it counts. docs/watching.md tells what to ask.

Names follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/). No label holds a lab, a batch or a
slide: there is no end of those, and logs and views name them.

A worker is several processes. Each keeps its numbers in a file below `PROMETHEUS_MULTIPROC_DIR`, which must be set
where a worker is started, and one of them answers for all (`worker.metrics`). What only Postgres knows is asked by the
HTTP service, once for the whole installation (`services.api.database_metrics`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
if _folder := os.environ.get(FOLDER_VARIABLE):
    Path(_folder).mkdir(parents=True, exist_ok=True)  # the library opens its files below, as the metrics are made

# Tasks of both workers.
TASKS_STARTED: Final = Counter("morphbatch_tasks_started", "Tasks begun.", ["task"])
TASKS_ENDED: Final = Counter("morphbatch_tasks_ended", "Tasks ended, by how.", ["task", "how"])
TASK_SECONDS: Final = Histogram(
    "morphbatch_task_seconds",
    "Seconds a task took, however it ended.",
    ["task"],
    buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800),
)

MESSAGES_DROPPED: Final = Counter(
    "morphbatch_messages_dropped", "Messages of the broker that were dropped: not ours.", ["place", "reason"]
)

# Slides, counted by the worker that committed what became of them.
ATTEMPTS: Final = Counter(
    "morphbatch_attempts",
    "Attempts at slides by what became of them: a state of the slide, given_back, or lease_lost.",
    ["outcome"],
)
SLIDES_QUARANTINED: Final = Counter("morphbatch_slides_quarantined", "Slides quarantined, by reason.", ["reason"])
SLIDES_GIVEN_BACK: Final = Counter(
    "morphbatch_slides_given_back", "Slides put back to be tried again, by reason.", ["reason"]
)
CELLS: Final = Counter("morphbatch_cells_classified", "Cells classified.")
SLIDE_SECONDS: Final = Histogram(
    "morphbatch_slide_seconds",
    "Seconds from claim to commit of an attempt that ended its slide.",
    buckets=(0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280),
)
STAGE_SECONDS: Final = Histogram(
    "morphbatch_stage_seconds",
    "Seconds of such an attempt in one stage; stages overlap.",
    ["stage"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)

# Triton, as its client sees it.
TRITON_REQUESTS: Final = Counter("morphbatch_triton_requests", "Requests to Triton: ok, or why not.", ["outcome"])
TRITON_SECONDS: Final = Histogram(
    "morphbatch_triton_request_seconds",
    "Seconds from sending a request to Triton to its answer, or to giving up.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

# Batches and sweeps, of the control worker.
MANIFESTS: Final = Counter("morphbatch_manifests", "Manifests read: new, unchanged, rejected or refused.", ["outcome"])
SLIDES_PUBLISHED: Final = Counter("morphbatch_slides_published", "Messages published for slides that wait.")
LEASES_EXPIRED: Final = Counter("morphbatch_leases_expired", "Slides taken from workers that stopped renewing a lease.")
BATCHES_CLOSED: Final = Counter("morphbatch_batches_closed", "Batches whose report was written, by state.", ["state"])
DELIVERIES: Final = Counter(
    "morphbatch_delivery_attempts",
    "Attempts to deliver results, by kind of target and what became of them: delivered, put_off or stopped.",
    ["kind", "outcome"],
)
SWEEP_SUCCESS: Final = Gauge(
    "morphbatch_sweep_last_success_timestamp_seconds",
    "When a sweep last ended well: of the database, or of the uploads.",
    ["sweep"],
    multiprocess_mode="max",
)

# The HTTP service.
API: Final = CollectorRegistry()
BUCKET_EVENTS: Final = Counter(
    "morphbatch_bucket_events", "Bucket events answered, by status code.", ["code"], registry=API
)


@dataclass(frozen=True, slots=True)
class DatabaseGauge:
    """A number that Postgres is asked for whenever Prometheus asks."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()


DATABASE_UP: Final = DatabaseGauge("morphbatch_database_up", "1: Postgres answered in time; 0: none of the others.")
BATCHES: Final = DatabaseGauge(
    "morphbatch_batches", "Batches that are open or were received within 24 hours, by state.", ("state",)
)
UNCLOSED: Final = DatabaseGauge("morphbatch_batches_unclosed", "Batches whose slides have ended, without a report yet.")
SLIDES: Final = DatabaseGauge(
    "morphbatch_slides", "Slides of these batches, by state; held: queued, and may not be started now.", ("state",)
)
QUARANTINED: Final = DatabaseGauge(
    "morphbatch_quarantined_slides", "Slides of these batches that wait for a person, by reason.", ("reason",)
)
WAITING: Final = DatabaseGauge(
    "morphbatch_waiting_slides", "Slides that were tried and put back, by what they wait for.", ("reason",)
)
OLDEST: Final = DatabaseGauge(
    "morphbatch_oldest_slide_age_seconds",
    "Since the oldest queued slide (none that is held) was asked for; since the oldest running attempt began.",
    ("state",),
)
OUTSTANDING_FIELDS: Final = DatabaseGauge(
    "morphbatch_outstanding_fields", "Fields of slides that run or may be started."
)
EXPIRED: Final = DatabaseGauge("morphbatch_expired_leases", "Running slides whose lease has run out: not swept yet.")
DELIVERIES_OPEN: Final = DatabaseGauge(
    "morphbatch_deliveries", "Results to be delivered that wait, and that are stopped until a person acts.", ("state",)
)
OLDEST_DELIVERY: Final = DatabaseGauge(
    "morphbatch_oldest_delivery_age_seconds", "Since the oldest of those that wait was to be delivered."
)
PARTITIONS_MISSING: Final = DatabaseGauge(
    "morphbatch_partitions_missing", "Months, of this and the next, for which no cell can be stored."
)
RELEASE: Final = DatabaseGauge("morphbatch_release_info", "The active release of the networks.", ("release", "kind"))
