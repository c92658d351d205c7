"""The life of a worker: a preflight before it takes work, and connections to its dependencies for each child process.

gRPC channels, pooled sockets and engines do not survive a fork. So each child opens its own on first use, and the
preflight is a process of its own.
"""

import ctypes
import logging
import subprocess
import sys
import time
from functools import cached_property, lru_cache

import cv2
from celery.apps.worker import Worker
from celery.signals import (
    after_setup_logger,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
)
from sqlalchemy import Engine

from migrations.run import require_head
from services import tracing
from services.database.session import make_engine
from services.dispatch import SLIDES
from services.errors import ConfigurationError, TransientError
from services.inference.known_answers import require_known_answers
from services.inference.networks import Networks
from services.keys import RELEASES
from services.log_context import write_as
from services.releases.activation import require_known_release
from services.releases.registry import recorded_release
from services.settings import load_settings
from services.storage import ObjectStore, connect_store
from worker import heartbeat, metrics

log = logging.getLogger(__name__)

PREFLIGHT_PATIENCE_S = 120
_M_TRIM_THRESHOLD = -1  # of malloc.h
_M_MMAP_THRESHOLD = -3


class Connections:
    """One process's connections to Postgres, the object store and Triton."""

    def __init__(self) -> None:
        self._settings = load_settings()

    @cached_property
    def engine(self) -> Engine:
        """Postgres."""
        return make_engine(self._settings.database_url)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return connect_store(self._settings)

    @cached_property
    def networks(self) -> Networks:
        """Triton."""
        s = self._settings
        return Networks(
            s.triton_endpoint, batch=s.inference_batch, in_flight=s.inference_in_flight, timeout_s=s.inference_timeout_s
        )

    def close(self) -> None:
        """Close whatever was opened."""
        if "networks" in self.__dict__:
            self.networks.close()
        if "engine" in self.__dict__:
            self.engine.dispose()


@lru_cache(maxsize=1)
def connections() -> Connections:
    """Those of this process."""
    return Connections()


@after_setup_logger.connect
def _set_up_log(logger: logging.Logger, **_: object) -> None:
    write_as(load_settings().log_format, logger.handlers)
    # Two lines for each sweep, every few seconds, would bury what an operator looks for.
    for noisy in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@worker_process_init.connect
def _prepare_child(**_: object) -> None:
    # Slides run side by side, one a process; threads within OpenCV would only fight over the same cores.
    cv2.setNumThreads(1)
    _keep_freed_memory()
    tracing.start_tracing()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 256 MB, instead of giving it back to the kernel.

    Every field takes and frees tens of megabytes; to be given them again, page by page, costs as long as decoding it.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # musl has none
        for option, size in ((_M_MMAP_THRESHOLD, 32 * 2**20), (_M_TRIM_THRESHOLD, 256 * 2**20)):
            mallopt(option, size)


@worker_process_shutdown.connect
def _close_child(**_: object) -> None:
    connections().close()
    tracing.stop_tracing()


@worker_init.connect
def _preflight(sender: Worker, **_: object) -> None:
    heartbeat.begin(load_settings().heartbeat_file)
    takes_slides = SLIDES in sender.app.amqp.queues.consume_from
    done = subprocess.run([sys.executable, "-m", "worker.lifecycle", *([SLIDES] if takes_slides else [])], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    metrics.begin()


@worker_ready.connect
def _serve_metrics(**_: object) -> None:
    if address := load_settings().metrics_address:
        metrics.serve(address)


def preflight(*, takes_slides: bool) -> None:
    """Refuse to start beside a database of another revision, or networks of an unknown release, class order or answers.

    Waits up to two minutes for what is merely down, or answers too late.

    Raises:
        ConfigurationError: something does not fit; the message says what to do.
        TransientError: it is down still.
    """
    metrics.require_folder(load_settings())
    tracing.wanted()
    deadline = time.monotonic() + PREFLIGHT_PATIENCE_S
    while True:
        connected = Connections()
        try:
            require_head(connected.engine)
            connected.store.stat(RELEASES)
            if takes_slides:
                served = connected.networks.served_release()
                require_known_release(connected.engine, served)
                release = recorded_release(connected.engine, served.release_id)
                log.info("%s", require_known_answers(connected.networks, release, served.form, connected.store))
            return
        except TransientError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting: %s", error)
            time.sleep(2)
        finally:
            connected.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    write_as(load_settings().log_format, logging.root.handlers)
    try:
        preflight(takes_slides=SLIDES in sys.argv)
    except (ConfigurationError, TransientError) as refusal:
        log.critical("the worker does not start: %s", refusal)
        sys.exit(1)
