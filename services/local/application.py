"""Our own processes of the stack: the steps before them, the two workers, the schedule and the HTTP service."""

import shutil
import sys

from services.dispatch import CONTROL, SLIDES, connect_publisher
from services.local.installation import Installation
from services.local.service import NotReady, Service, Step, ask_health
from services.metrics import FOLDER_VARIABLE
from services.settings import Settings


def migrate_step() -> Step:
    """Bring the database up to date."""
    return Step("migrate", (sys.executable, "-m", "services.cli.main", "migrate"), deadline_s=300)


def release_step() -> Step:
    """Have a release of the networks recorded, active, and laid out for Triton; the shipped one if there is none."""
    return Step("release", (sys.executable, "-m", "services.cli.main", "release", "install"), deadline_s=600)


def slide_worker(installation: Installation, settings: Settings) -> Service:
    """The Celery worker that analyses slides, `worker_concurrency` at once."""
    return _worker(installation, settings, "worker", SLIDES, settings.worker_concurrency)


def control_worker(installation: Installation, settings: Settings) -> Service:
    """The Celery worker that takes in batches, sweeps and closes, so that none of it waits behind slides."""
    return _worker(installation, settings, "control", CONTROL, 1)


def _worker(installation: Installation, settings: Settings, name: str, queue: str, concurrency: int) -> Service:
    node = f"{name}@{installation.plain_name}"
    port, folder = installation.ports[f"{name}_metrics"], installation.home / "metrics" / name
    return Service(
        name=name,
        command=(
            sys.executable, "-m", "celery", "--app", "worker.app", "worker", "--hostname", node, "--queues", queue,
            "--concurrency", str(concurrency), "--loglevel", "info", "--without-gossip", "--without-mingle",
        ),
        environment={"MORPHBATCH_METRICS_ADDRESS": f"127.0.0.1:{port}", FOLDER_VARIABLE: str(folder)},
        # Before its first process opens a file there.
        prepare=lambda: shutil.rmtree(folder, ignore_errors=True),
        ready=lambda: _ask_worker(settings, node),
        # A warm shutdown: it ends as soon as the slides at hand do; what takes longer comes back by its lease.
        grace_s=settings.soft_shutdown_seconds,
        deadline_s=180.0,  # its preflight waits for its dependencies
    )  # fmt: skip


def beat(installation: Installation) -> Service:
    """Publishes the sweeps on schedule."""
    schedule = installation.home / "beat"

    return Service(
        name="beat",
        command=(
            sys.executable, "-m", "celery", "--app", "worker.app", "beat", "--schedule", str(schedule / "schedule"),
            "--pidfile", "", "--loglevel", "info",
        ),
        prepare=lambda: schedule.mkdir(exist_ok=True),
        ready=lambda: None,  # it answers nobody; that it goes on running is all there is to see
    )  # fmt: skip


def api(installation: Installation) -> Service:
    """The HTTP service: bucket events and health."""
    port = installation.ports["api"]
    return Service(
        name="api",
        command=(
            sys.executable, "-m", "uvicorn", "--factory", "services.api.app:create_app",
            "--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", "5",
        ),
        port=port,
        ready=lambda: ask_health(port, "/health/live"),
        deadline_s=60.0,  # its imports take long where all services start at once on few cores
    )  # fmt: skip


def _ask_worker(settings: Settings, node: str) -> None:
    if not connect_publisher(settings.broker_url).worker_answers(node):
        raise NotReady(f"{node} does not answer on the broker")
