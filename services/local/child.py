"""One service as a child process: started, watched, stopped with everything it started itself."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

from services.errors import ConfigurationError, MorphbatchError
from services.local.service import CHECKOUT, Service, launcher

_BACKOFF_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S: Final = 60.0
_CHECK_S: Final = 5.0
_LOG_BYTES: Final = 20 * 2**20


class ServiceState(StrEnum):
    """`down` is on purpose; `crashed` waits for its next start."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"


class Child:
    """The process of one service, and how often it had to be started again."""

    def __init__(self, service: Service, log: Path, environment: Mapping[str, str]) -> None:
        self.service = service
        self.log = log
        self.state = ServiceState.DOWN
        self.restarts = 0
        self.trouble: str | None = None
        self._environment = {**environment, **service.environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._check_at = 0.0
        self._log_start = 0

    def start(self) -> None:
        """Start the process; it becomes ready, or crashes, in later calls of `look`."""
        self._started_at = time.time()
        self._process = None
        try:
            self._spawn()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one service, the others go on
            self._crashed(f"could not be started: {_told(error)}")
        else:
            self.state = ServiceState.STARTING

    def look(self) -> None:
        """Bring `state` up to date: notice a crash, a late start or readiness; start again when its time has come."""
        if self.state is ServiceState.DOWN:
            return
        if self.state is ServiceState.CRASHED:
            if time.time() >= self._retry_at():
                self.restarts += 1
                self.start()
            return
        assert self._process is not None  # noqa: S101 - STARTING and READY have one
        code = self._process.poll()
        if code is not None:
            self._crashed(f"ended with {describe_exit(code)}")
        elif self.state is ServiceState.STARTING:
            self._look_for_readiness()
        elif (trouble := self._trouble_of_check(self._process.pid)) is not None:
            self._process.kill()
            self._crashed(trouble)
        elif self._failures and time.time() - self._started_at > _STEADY_S:
            self._failures = 0

    def stop(self) -> None:
        """Ask the process to stop, wait its grace time, then end it and all it started. Blocks until it is gone."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(self.service.stop_signal)
                try:
                    self._process.wait(self.service.grace_s)
                except subprocess.TimeoutExpired:
                    self._process.kill()
            self._end_group()
        self._process = None
        self.state, self._failures, self.trouble = ServiceState.DOWN, 0, None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that this start of the service wrote."""
        return tail(self.log, lines, self._log_start)

    def report(self) -> dict[str, Any]:
        """What `stack.json` says of this service."""
        alive = self._process is not None and self._process.returncode is None
        return {
            "state": self.state,
            "pid": self._process.pid if alive and self._process else None,
            "port": self.service.port,
            "started_at": datetime.fromtimestamp(self._started_at, UTC).isoformat() if alive else None,
            "restarts": self.restarts,
            "trouble": self.trouble,
            "log": str(self.log),
        }

    def _spawn(self) -> None:
        self.service.prepare()
        with open_log(self.log) as stream:
            self._log_start = stream.tell()
            self._process = subprocess.Popen(
                (*launcher(os.getpid(), self.service.stop_signal, self.service.data), *self.service.command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=CHECKOUT,
                start_new_session=True,  # a group of its own, so that what it started can be ended with it
            )

    def _look_for_readiness(self) -> None:
        try:
            self.service.ready()
            self.service.settle()
        except ConfigurationError as error:  # it answers, and waiting will not help
            if self._process is not None:
                self._process.kill()
            self._crashed(str(error))
        except Exception as error:  # noqa: BLE001 - not ready, and no matter for any other service
            self.trouble = _told(error)
            if time.time() - self._started_at > self.service.deadline_s and self._process is not None:
                self._process.kill()
                self._crashed(f"not ready within {self.service.deadline_s:.0f} s: {self.trouble}")
        else:
            self.state, self.trouble = ServiceState.READY, None

    def _trouble_of_check(self, pid: int) -> str | None:
        """What only a new start helps, asked for every few seconds."""
        if time.time() < self._check_at:
            return None
        self._check_at = time.time() + _CHECK_S
        try:
            self.service.check(pid)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this service alone
            return _told(error)
        return None

    def _crashed(self, how: str) -> None:
        self._end_group()
        self.state, self.trouble = ServiceState.CRASHED, how
        self._failures += 1

    def _retry_at(self) -> float:
        # From the last start on: a service that ran for long and then dies is back at once.
        return self._started_at + _BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1]

    def _end_group(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # the process was the last of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to; one that has grown large is set aside as `<name>.1` first."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def tail(log: Path, lines: int, start: int = 0) -> str:
    """The last `lines` lines of `log` behind byte `start`; empty where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(start)
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _told(error: Exception) -> str:
    """Our own errors speak for themselves; of others the class says more than the words."""
    return str(error) if isinstance(error, MorphbatchError) else f"{type(error).__name__}: {error}"


def describe_exit(code: int) -> str:
    """`code 1`, or `SIGKILL`."""
    return f"code {code}" if code >= 0 else signal.Signals(-code).name
