"""A worker's sign of life, and what the probes make of it."""

import os
import time
from pathlib import Path

import pytest

from services.settings import load_settings
from worker import alive, heartbeat


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers there."""
    monkeypatch.setenv("MORPHBATCH_BROKER_URL", "redis://:secret@127.0.0.1:9/0")
    load_settings.cache_clear()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run" / "heartbeat"
    monkeypatch.setenv(alive.FILE_VARIABLE, str(path))
    heartbeat.begin(path)
    return path


def answers(monkeypatch: pytest.MonkeyPatch, *, broker: bool) -> None:
    monkeypatch.setattr(alive, "_broker_answers", lambda: broker)


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("broker", [True, False])
def test_with_a_young_heartbeat_it_is_well(
    file: Path, monkeypatch: pytest.MonkeyPatch, ready: bool, broker: bool
) -> None:
    answers(monkeypatch, broker=broker)
    file.touch()
    assert alive.main(ready=ready) is None


def test_before_its_preflight_it_is_not_ready(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, broker=True)
    assert "no heartbeat yet" in str(alive.main(ready=True))


@pytest.mark.parametrize(("broker", "well"), [(True, False), (False, True)])
def test_an_old_heartbeat_is_excused_by_the_broker_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch, broker: bool, well: bool
) -> None:
    answers(monkeypatch, broker=broker)
    file.touch()
    long_ago = time.time() - 61
    os.utime(file, (long_ago, long_ago))
    assert (alive.main(ready=False) is None) is well
    assert "61 s ago" in str(alive.main(ready=True))


def test_a_heartbeat_of_an_earlier_run_is_forgotten(file: Path) -> None:
    file.touch()
    heartbeat.begin(file)
    assert alive.heartbeat_age(file) is None
    heartbeat.begin(None)  # nobody asked for one
