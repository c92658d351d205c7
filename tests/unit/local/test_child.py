"""A service's own check may fail in any way: that concerns this service alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.local.child import Child, ServiceState
from services.local.service import NotReady, Service
from services.local.triton import _require_models
from tests.waiting import wait_until


class Unforeseen(Exception):
    """An error that nobody expects of a readiness check, such as a client's own."""


def child(tmp_path: Path, fails: list[bool]) -> Child:
    def ready() -> None:
        if fails[0]:
            raise Unforeseen("READONLY You can't write against a read only replica")

    service = Service(name="patient", command=("sleep", "60"), ready=ready)
    return Child(service, tmp_path / "log", {"PATH": "/usr/bin:/bin"})


def test_a_check_that_fails_unforeseen_is_not_ready_and_is_asked_again(tmp_path: Path) -> None:
    fails = [True]
    watched = child(tmp_path, fails)
    watched.start()
    try:
        for _ in range(3):
            watched.look()
            assert watched.state is ServiceState.STARTING
        assert watched.trouble == "Unforeseen: READONLY You can't write against a read only replica"
        fails[0] = False
        watched.look()
        assert watched.state is ServiceState.READY
        assert watched.trouble is None
    finally:
        watched.stop()


def test_one_that_never_stops_failing_ends_as_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = child(tmp_path, [True])
    watched.start()
    try:
        late = time.time() + 1000
        monkeypatch.setattr("services.local.child.time.time", lambda: late)
        watched.look()
        assert watched.state is ServiceState.CRASHED
        assert "Unforeseen" in str(watched.trouble)
    finally:
        monkeypatch.undo()
        watched.stop()


def test_a_preparation_that_fails_unforeseen_is_a_crash_of_this_service(tmp_path: Path) -> None:
    def prepare() -> None:
        raise Unforeseen("broken")

    service = Service(name="patient", command=("sleep", "60"), ready=lambda: None, prepare=prepare)
    watched = Child(service, tmp_path / "log", {"PATH": "/usr/bin:/bin"})
    watched.start()
    assert watched.state is ServiceState.CRASHED
    assert watched.trouble == "could not be started: Unforeseen: broken"


def test_one_that_fails_its_check_after_it_was_ready_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.local.child._CHECK_S", 0.0)
    checked: list[int] = []

    def check(pid: int) -> None:
        checked.append(pid)
        if len(checked) == 2:
            raise Unforeseen("half of it has ended")

    service = Service(name="patient", command=("sleep", "60"), ready=lambda: None, check=check)
    watched = Child(service, tmp_path / "log", {"PATH": "/usr/bin:/bin"})
    watched.start()
    try:
        for state in (ServiceState.READY, ServiceState.READY, ServiceState.CRASHED):
            watched.look()
            assert watched.state is state
        assert watched.trouble == "Unforeseen: half of it has ended"
        wait_until(lambda: watched.look() or watched.state is ServiceState.READY)
        watched.look()
        assert watched.restarts == 1
        assert len(set(checked)) == 2, "another process"
    finally:
        watched.stop()


def test_a_model_of_triton_that_has_ended_is_noticed() -> None:
    program = "import os, time; pid = os.fork(); pid or os._exit(0); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            wait_until(lambda: psutil.Process(server.pid).children()[0].status() == psutil.STATUS_ZOMBIE)
            with pytest.raises(NotReady, match="of a model has ended"):
                _require_models(server.pid)
            _require_models(os.getpid())
        finally:
            server.kill()
