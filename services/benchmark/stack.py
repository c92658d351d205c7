"""The stack that is measured: real services in a home of their own, and batches sent to them as a LIMS does."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, TextClause, text

from services.benchmark.cores import Cores
from services.database.session import make_engine
from services.dispatch import connect_publisher
from services.errors import PermanentError, TransientError
from services.intake.folder import read_folder
from services.intake.upload import upload
from services.local.control import change_services, read_state, start_stack, stop_stack
from services.local.installation import SERVICES, load_installation
from services.local.settings import load_local_settings, settings_of
from services.settings import Settings
from services.storage import ObjectStore, connect_store
from triton_models.layout.served_here import ServedHere
from triton_models.untrained.grow import build_untrained

LAB: Final = "bench"
_POLL_S: Final = 0.25  # asked every 20 ms, Postgres and this process took 3 % of two cores from what is measured
_PATIENCE_S: Final = 900.0


class BenchmarkFailed(PermanentError):
    """The measured work did not end as it should; its figures would mean nothing."""

    reason = "benchmark_failed"


class TooSlow(TransientError):
    """A batch did not end within far more time than it should take."""

    reason = "too_slow"


@dataclass(frozen=True, slots=True)
class Run:
    """One batch through the service: seconds from the end of its upload until all its rows were seen committed.

    `stages` and `cpu` are seconds by stage, summed over its slides: of the clock, and of the processor. `cores` is
    where the cores' time went meanwhile (`Cores.spent`).
    """

    seconds: float
    fields: int
    cells: int
    stages: Mapping[str, float]
    cpu: Mapping[str, float]
    cores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BenchStack:
    """A running stack."""

    home: Path
    settings: Settings
    engine: Engine
    store: ObjectStore

    @property
    def repository(self) -> Path:
        """What its Triton serves."""
        return self.home / "triton" / "repository"

    def pid(self, service: str) -> int:
        """The process of a service."""
        pid: int = read_state(self.home)["services"][service]["pid"]
        return pid

    def run(self, folder: Path, batch: str, um_per_px: float | None) -> Run:
        """Submit `folder` as a new batch and wait until every row of it is committed.

        Raises:
            BenchmarkFailed: a slide was quarantined.
            TooSlow: it does not end.
        """
        delivery = read_folder(folder, lab=LAB, batch_id=batch, um_per_px=um_per_px)
        upload(self.store, delivery)
        cores = Cores({name: self.pid(name) for name in SERVICES})
        started = time.perf_counter()
        connect_publisher(self.settings.broker_url).intake_batch(LAB, batch)
        self._wait_for_rows(batch, len(delivery.manifest.slides))
        seconds = time.perf_counter() - started
        spent = cores.spent()
        with self.engine.connect() as connection:
            cells, faulty = connection.execute(text(f"{_OF_BATCH} {_TOTALS}"), {"batch": batch}).one()
            timings = connection.execute(text(f"{_OF_BATCH} select timings from ours"), {"batch": batch}).scalars()
            stages, cpu = _summed(list(timings))
        if faulty:
            raise BenchmarkFailed(f"{faulty} slides of {batch} were quarantined: `morphbatch report` in {self.home}")
        self._wait_until_closed(batch)
        return Run(seconds, delivery.manifest.field_count, cells, stages, cpu, spent)

    def _wait_for_rows(self, batch: str, slides: int) -> None:
        done = text(f"{_OF_BATCH} select count(*) from ours where state not in ('queued', 'running')")
        self._wait(done, slides, batch)

    def _wait_until_closed(self, batch: str) -> None:
        """The reports are no part of what is measured, and must not run into the next measurement."""
        closed = text("select count(*) from batch where batch_code = :batch and closed_at is not null")
        self._wait(closed, 1, batch)

    def _wait(self, question: TextClause, answer: int, batch: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        # One connection that begins no transactions: what the asking costs is taken from what is measured.
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while connection.execute(question, {"batch": batch}).scalar_one() != answer:
                if time.monotonic() > deadline:
                    raise TooSlow(f"batch {batch} has not ended after {_PATIENCE_S:.0f} s; logs: {self.home / 'logs'}")
                time.sleep(_POLL_S)


_OF_BATCH: Final = (
    "with ours as (select analysis.* from analysis join slide on slide.id = slide_id"
    " join batch on batch.id = batch_id where batch_code = :batch)"
)
_TOTALS: Final = (
    "select coalesce(sum(cells_classified + reporting.sum_of(not_counted_by_reason)), 0)::bigint,"
    " count(*) filter (where state = 'quarantined') from ours"
)


@contextmanager
def bench_stack(
    home: Path, before_networks: Callable[[Path], None] | None = None, release: Path | None = None
) -> Iterator[BenchStack]:
    """A stack in `home`, stopped at the end; it keeps its release and compiled networks for the next time.

    It serves the release in the folder `release`; None: the untrained one, with crops of the size of the paper's
    networks, as what a network has learnt changes nothing of its speed. `before_networks` may change the repository
    (its argument) before Triton and the slide worker are started.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _points_at_a_stack(home)}
    environment["MORPHBATCH_HOME"] = str(home)
    late = {"triton", "worker"}
    try:
        start_stack(home, set(SERVICES) - late, attached=True, environment=environment)
        installation = load_installation(home)
        assert installation is not None  # noqa: S101 - it runs
        settings = settings_of(installation)
        engine = make_engine(settings.database_url)
        stack = BenchStack(home, settings, engine, connect_store(settings))
        try:
            _activate(stack, release)
            if before_networks:
                before_networks(stack.repository)
            change_services(home, start=late)
            yield stack
        finally:
            engine.dispose()
    finally:
        stop_stack(home)


def _activate(stack: BenchStack, release: Path | None) -> None:
    form = load_local_settings().triton_form
    releases = ServedHere(stack.engine, stack.store, stack.home / "triton", form)
    with tempfile.TemporaryDirectory(prefix="morphbatch-bench-") as scratch:
        folder = release or Path(scratch) / "untrained"
        if release is None:
            build_untrained(folder)
        releases.activate(releases.registry.publish(folder).release.id, by="bench")


def _points_at_a_stack(home: Path) -> set[str]:
    """Settings of the caller that would lead this stack's processes to the servers of another."""
    kept = load_installation(home)
    return {"MORPHBATCH_HOME", "MORPHBATCH_API_HOST", *(kept.environment() if kept else _POINTERS)}


_POINTERS: Final = tuple(
    f"MORPHBATCH_{name}"
    for name in (
        *(
            "DATABASE_URL",
            "MIGRATION_URL",
            "ANALYST_URL",
            "BROKER_URL",
            "S3_ENDPOINT",
            "S3_ACCESS_KEY",
            "S3_SECRET_KEY",
        ),
        *("TRITON_ENDPOINT", "API_PORT", "WEBHOOK_TOKEN"),
    )
)


def _summed(timings: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    stages: Counter[str] = Counter()
    cpu: Counter[str] = Counter()
    for slide in timings:
        cpu.update(slide.get("cpu", {}))
        stages.update({name: seconds for name, seconds in slide.items() if name != "cpu"})
    return _rounded(stages), _rounded(cpu)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in sorted(seconds.items(), key=lambda item: -item[1])}
