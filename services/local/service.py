"""What the supervisor runs: services, which stay up, and steps, which run once between them."""

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import urllib3

from services.errors import OutageError

CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds the packages `services` and `worker`: where `python -m …` finds them, installed or not."""


class NotReady(OutageError):
    """A server does not answer yet, and why."""

    reason = "not_ready"


def ask_health(port: int, path: str) -> None:
    """Ask a server of ours on 127.0.0.1 by HTTP whether it is ready.

    Raises:
        NotReady: it does not answer within a second, or not with 200.
    """
    try:
        # A connection kept alive would hold up Triton's exit until its timeout.
        answer = urllib3.request(
            "GET", f"http://127.0.0.1:{port}{path}", headers={"Connection": "close"}, timeout=1.0, retries=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise NotReady(f"{type(error).__name__}: {error}") from error
    if answer.status != 200:
        raise NotReady(f"{path} answers {answer.status}")


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Service:
    """A server as a child process.

    `ready` returns once the server does its work and raises `NotReady` until then; it takes a second at most. `prepare`
    runs before each start and `settle` each time it has become ready; both may run again and again. `check` is called
    every few seconds after that, with the process, and raises `NotReady` for what only a new start helps. `data` is the
    folder of a server that is not ours, which finds it as `DATA` and runs without root's rights.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], None]
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    deadline_s: float = 30.0
    data: Path | None = None
    prepare: Callable[[], None] = _nothing
    settle: Callable[[], None] = _nothing
    check: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Step:
    """A command that must end well before the services after it are started."""

    name: str
    command: tuple[str, ...]
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """A service that is put together only when it is wanted, since what it runs on may not be installed.

    `make` raises `ConfigurationError` then.
    """

    name: str
    make: Callable[[], Service]


def launcher(parent_pid: int, stop_signal: signal.Signals, data: Path | None = None) -> tuple[str, ...]:
    """The words before a command that tie it to process `parent_pid`; see `services.local.launch`."""
    program = str(Path(__file__).with_name("launch.py"))
    words = (sys.executable, "-I", "-S", program, str(parent_pid), str(int(stop_signal)))
    return (*words, "--data", str(data)) if data else words
