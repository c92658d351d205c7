"""The real stack for the tests that need one, in a home of its own on free ports."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog import contextvars

from services.local.child import tail
from services.local.control import change_services, read_state, start_stack, stop_stack
from services.local.installation import SERVICES, S3Flavour, load_installation
from services.local.object_store import find_minio
from services.local.settings import load_local_settings, settings_of
from services.local.triton import find_environment
from services.settings import Settings
from tests.places import CHECKOUT
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_bound() -> None:
    """Tests that call the work without a task leave their names bound in the log of this thread."""
    contextvars.clear_contextvars()


# What a test waits for should come in seconds.
QUICK = {
    "MORPHBATCH_SWEEP_SECONDS": "2",
    "MORPHBATCH_DISPATCH_SECONDS": "1",
    "MORPHBATCH_REPUBLISH_SECONDS": "5",
    "MORPHBATCH_RETRY_BASE_SECONDS": "0.5",
    "MORPHBATCH_OUTAGE_DELAY_SECONDS": "1",
    "MORPHBATCH_LEASE_SECONDS": "6",
    "MORPHBATCH_SOFT_SHUTDOWN_SECONDS": "10",
}


def clean_environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a stack in `home`: ours, without the settings of the machine it runs on."""
    kept = ("MORPHBATCH_MINIO", "MORPHBATCH_TRITON_ENV", "MORPHBATCH_DATA")
    ours = {name: value for name, value in os.environ.items() if name in kept or not name.startswith("MORPHBATCH_")}
    return {**ours, **QUICK, "MORPHBATCH_HOME": str(home), **settings}


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack. Services keep their names of `services.local.installation.SERVICES`."""

    home: Path
    environment: Mapping[str, str]
    s3: S3Flavour

    @property
    def settings(self) -> Settings:
        """The settings that its processes have."""
        installation = load_installation(self.home)
        assert installation is not None
        return settings_of(installation, self.environment)

    def state(self) -> dict[str, Any]:
        """What its supervisor says of it."""
        return read_state(self.home)

    def pid(self, service: str) -> int:
        """The process of a service that runs."""
        pid: int = self.state()["services"][service]["pid"]
        return pid

    def start(self, *services: str) -> None:
        """Start services (all: none named) and wait until they are ready."""
        change_services(self.home, start=services or SERVICES)

    def stop(self, *services: str) -> None:
        """Stop services in good order; they stay down until `start`."""
        change_services(self.home, stop=services)

    def kill(self, service: str) -> None:
        """End the service's process by SIGKILL and wait until the supervisor has noticed; it starts it again."""
        killed = self.pid(service)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.pid(service) not in (killed, None), what=f"{service} started again")

    def wait_until_ready(self, *services: str, seconds: float = 60) -> None:
        """Wait until services (all that are wanted: none named) are ready again."""
        names = services or self.state()["wanted"]
        wait_until(
            lambda: all(self.state()["services"][name]["state"] == "ready" for name in names), seconds, f"{names} ready"
        )

    def run_cli(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """`morphbatch ARGUMENTS` against this stack, as text; its exit code is not checked."""
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            cwd=CHECKOUT, env=dict(self.environment), capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def log_tails(self, lines: int = 15) -> str:
        """The ends of all its logs."""
        logs = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{tail(log, lines)}" for log in logs)


def chosen_s3(flavour: S3Flavour | None) -> S3Flavour:
    """The flavour asked for, by default MinIO where its binary is found; skips the test where it is not."""
    found = find_minio(load_local_settings().minio) is not None
    if flavour == "minio" and not found:
        pytest.skip("no minio binary: `make minio` builds it")
    return flavour or ("minio" if found else "rclone")


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, one for all tests; a test that stops a service starts it again.

    `@pytest.mark.parametrize("stack", ["rclone", "minio"], indirect=True)` names its S3 server.
    """
    flavour = chosen_s3(getattr(request, "param", None))
    find_environment(None)
    home = tmp_path_factory.mktemp(f"stack für {flavour}")
    running = Stack(home, clean_environment(home), flavour)
    start_stack(home, SERVICES, flavour, environment=running.environment)
    yield running
    stop_stack(home)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failed test on a stack shows the ends of its servers' logs."""
    report = yield
    for name in getattr(item, "fixturenames", ()):
        used = getattr(item, "funcargs", {}).get(name)
        if report.failed and isinstance(used, Stack):
            report.sections.append((f"logs of {used.home}", used.log_tails()))
    return report
