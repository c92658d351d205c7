"""A worker's metrics: its processes write them to files, and its main process answers Prometheus for all of them."""

import logging
import os
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from services import metrics
from services.database.states import SLIDE_ENDED
from services.errors import ConfigurationError
from services.settings import Settings

log = logging.getLogger(__name__)


def require_folder(settings: Settings) -> None:
    """Check that the processes of a worker that serves metrics have a place for them.

    Raises:
        ConfigurationError: they have none.
    """
    if settings.metrics_address is not None and metrics.FOLDER_VARIABLE not in os.environ:
        raise ConfigurationError(
            f"MORPHBATCH_METRICS_ADDRESS is set and {metrics.FOLDER_VARIABLE} is not:"
            " name a folder that no other worker has"
        )


def begin() -> None:
    """Forget the processes of an earlier run; begin what is counted at 0, so that the first is seen as an increase."""
    if folder := os.environ.get(metrics.FOLDER_VARIABLE):
        for left in Path(folder).glob("*.db"):
            if not left.stem.endswith(f"_{os.getpid()}"):
                left.unlink()
    for outcome in (*SLIDE_ENDED, "given_back", "lease_lost"):
        metrics.ATTEMPTS.labels(outcome)
    metrics.TRITON_REQUESTS.labels("ok")


def serve(address: str) -> None:
    """Answer `GET /metrics` at `address`, host:port, from a thread that ends with this process.

    Call it once the first children are forked: a thread must not hold a lock then.
    """
    host, port = address.rsplit(":", 1)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:  # slides are worth more than their numbers
        log.error("no metrics at %s: %s", address, error)
