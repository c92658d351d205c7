"""Runs the services of one home: starts them in order, starts crashed ones again, stops them in reverse order.

One thread, on purpose: a server is tied to the thread that started it (see `services.local.launch`). Which services are
wanted stands in `wanted.json`, so that the command line can stop or start one while the others go on; what became of
that stands in `stack.json`.
"""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from services.atomic import write_text
from services.documents import read_json
from services.errors import MorphbatchError
from services.local.child import Child, ServiceState, describe_exit, open_log, tail
from services.local.installation import HomeDamaged, Installation
from services.local.service import CHECKOUT, Planned, Step, launcher

_TICK_S: Final = 0.1
log = logging.getLogger(__name__)


class StartFailed(MorphbatchError):
    """A service or step did not start; the message holds the end of its log."""

    reason = "start_failed"


class _Stopped(Exception):
    """No error: SIGTERM came during the start."""


class Supervisor:
    """The services of one home as children of this process. Make it in the main thread, then `run` it."""

    def __init__(
        self, installation: Installation, plan: Sequence[tuple[Planned | Step, ...]], environment: Mapping[str, str]
    ) -> None:
        self._installation = installation
        self._plan = plan
        self._environment = environment
        self._children: dict[str, Child] = {}
        self._steps_done: set[str] = set()
        self._wanted: frozenset[str] = frozenset()
        self._state = "starting"
        self._error: str | None = None
        self._stopping = False
        self._written = ""
        self._began = datetime.now(UTC).isoformat()

    def run(self) -> int:
        """Start what is wanted and keep it up until SIGTERM or SIGINT; the exit code, 1 if the start failed."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        code = 0
        try:
            self._wanted = read_wanted(self._installation.home)
            self._bring_up()
            while not self._stopping:
                self._tick()
                self._follow_wishes()
        except _Stopped:
            log.info("asked to stop during the start")
        except StartFailed as error:
            log.error("%s", error)
            self._error = str(error)
            code = 1
        finally:
            self._shut_down()
        return code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("received %s", signal.Signals(number).name)
        self._stopping = True

    def _follow_wishes(self) -> None:
        wanted = read_wanted(self._installation.home)
        if wanted == self._wanted:
            return
        log.info("wanted now: %s", ", ".join(sorted(wanted)) or "nothing")
        self._wanted, self._state, self._error = wanted, "starting", None
        for child in self._running_backwards():
            if child.service.name not in wanted:
                self._stop(child)
        try:
            self._bring_up()
        except StartFailed as error:  # the others go on
            log.error("%s", error)
            self._state, self._error = "failed", str(error)

    def _bring_up(self) -> None:
        """Start every wanted service that is down, each after those of earlier stages are ready."""
        for position, stage in enumerate(self._plan):
            needed = any(item.name in self._wanted for later in self._plan[position:] for item in later)
            for item in stage:
                if isinstance(item, Step) and needed and item.name not in self._steps_done:
                    self._take(item)
            services = [item for item in stage if isinstance(item, Planned) and item.name in self._wanted]
            self._start([child for child in map(self._child, services) if child.state is ServiceState.DOWN])
        self._state = "ready"

    def _child(self, planned: Planned) -> Child:
        if planned.name not in self._children:
            try:
                service = planned.make()
            except Exception as error:
                raise StartFailed(f"{planned.name} cannot be started: {error}") from error
            self._children[planned.name] = Child(service, self._log(planned.name), self._environment)
        return self._children[planned.name]

    def _running_backwards(self) -> list[Child]:
        names = [item.name for stage in reversed(self._plan) for item in reversed(stage) if item.name in self._children]
        return [self._children[name] for name in names if self._children[name].state is not ServiceState.DOWN]

    def _start(self, children: Sequence[Child]) -> None:
        for child in children:
            log.info("starting %s", child.service.name)
            child.start()
        for child in children:
            self._await(child)
            if child.state is not ServiceState.READY:
                why, written = child.trouble, child.log_tail()
                child.stop()
                raise StartFailed(f"{child.service.name} did not start: {why}\n--- {child.log}\n{written}")
            log.info("%s is ready", child.service.name)

    def _await(self, child: Child) -> None:
        self._wait_while(lambda: child.state is ServiceState.STARTING)

    def _stop(self, child: Child) -> None:
        log.info("stopping %s", child.service.name)
        child.stop()
        self._write_state()

    def _take(self, step: Step) -> None:
        log.info("step %s", step.name)
        path = self._log(step.name)
        deadline = time.monotonic() + step.deadline_s
        with open_log(path) as stream:
            start = stream.tell()
            process = subprocess.Popen(
                (*launcher(os.getpid(), signal.SIGTERM), *step.command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=CHECKOUT,
                start_new_session=True,
            )
        try:
            self._wait_while(lambda: process.poll() is None and time.monotonic() < deadline)
            code = process.poll()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            how = f"not finished within {step.deadline_s:.0f} s" if code is None else describe_exit(code)
            raise StartFailed(f"step {step.name} failed: {how}\n--- {path}\n{tail(path, 25, start)}")
        self._steps_done.add(step.name)

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            if self._stopping:
                raise _Stopped
            self._tick()

    def _tick(self) -> None:
        for child in self._children.values():
            before = child.state
            child.look()
            if child.state is not before and child.state in (ServiceState.CRASHED, ServiceState.STARTING):
                log.warning("%s: %s%s", child.service.name, child.state, f": {child.trouble}" if child.trouble else "")
        self._write_state()
        time.sleep(_TICK_S)

    def _shut_down(self) -> None:
        self._state = "stopping"
        for child in self._running_backwards():
            self._stop(child)
        self._state = "failed" if self._error else "stopped"
        self._write_state()
        log.info("all services are stopped")

    def _write_state(self) -> None:
        document = {
            "state": self._state,
            "error": self._error,
            "supervisor": os.getpid(),
            "guard": os.getppid(),
            "started_at": self._began,
            "s3": self._installation.s3_flavour,
            "wanted": sorted(self._wanted),
            "services": {name: child.report() for name, child in self._children.items()},
        }
        text = json.dumps(document, indent=2) + "\n"
        if text != self._written:
            write_text(self._installation.state_file, text, private=True)
            self._written = text

    def _log(self, name: str) -> Path:
        return self._installation.logs / f"{name}.log"


def read_wanted(home: Path) -> frozenset[str]:
    """Names of the services that are to run.

    Raises:
        HomeDamaged: the file that names them is not what the stack wrote.
    """
    wanted = read_json(home / "wanted.json", HomeDamaged)
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise HomeDamaged(f"{home / 'wanted.json'} is not a list of services: remove it and run `morphbatch up`")
    return frozenset(wanted)


def write_wanted(home: Path, names: frozenset[str]) -> None:
    """Ask the supervisor of `home` to run these services and no others."""
    write_text(home / "wanted.json", json.dumps(sorted(names)) + "\n", private=True)
