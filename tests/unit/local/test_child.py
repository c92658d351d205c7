"""A service's own check may fail in any way: that concerns this service alone."""

import time
from pathlib import Path

import pytest

from services.local.child import Child, ServiceState
from services.local.service import Service


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
