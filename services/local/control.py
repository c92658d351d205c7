"""What the command line and the tests do to a stack: start it, ask for its state, start or stop a service, end it."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from services.documents import read_json_object
from services.errors import ConfigurationError, OutageError
from services.local.child import tail
from services.local.installation import SERVICES, HomeDamaged, S3Flavour, load_installation
from services.local.service import CHECKOUT, Planned
from services.local.supervisor import StartFailed, read_wanted, write_wanted

ALREADY_RUNS: Final = 3
"""Exit code of a guard that found the lock taken."""

_PATIENCE_S: Final = 900.0  # the first start grows a release and compiles two networks
_POLL_S: Final = 0.1
_guards: Final[dict[Path, subprocess.Popen[bytes]]] = {}


class StackDown(OutageError):
    """The stack does not run."""

    reason = "stack_down"


def start_stack(
    home: Path,
    wanted: Iterable[str] = SERVICES,
    s3_flavour: S3Flavour | None = None,
    *,
    attached: bool = False,
    environment: Mapping[str, str] | None = None,
    on_change: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Start the stack of `home`, or what is missing of one that runs, and wait until all of it is ready.

    `attached`: it stops with this process. `environment`: its processes get this one, not ours.
    `on_change` is called with each new state on the way.

    Returns:
        Its state, and whether it ran already.

    Raises:
        StartFailed: something did not come up; the message holds the end of its log.
        ConfigurationError: an unknown service is asked for.
    """
    names = _known(wanted)
    home.mkdir(parents=True, exist_ok=True)
    if is_running(home):
        write_wanted(home, names | read_wanted(home))
        state = _wait_until_ready(home, None, on_change)
        _require_answers(home, names)
        return state, True
    write_wanted(home, names)
    guard = _start_guard(home, s3_flavour, environment or os.environ, attached=attached)
    try:
        return _wait_until_ready(home, guard, on_change), False
    except BaseException as error:  # also Ctrl-C: half a stack is left to nobody
        if not isinstance(error, StartFailed):  # then it is stopping already
            guard.terminate()
        guard.wait()
        raise


def change_services(home: Path, *, start: Iterable[str] = (), stop: Iterable[str] = ()) -> dict[str, Any]:
    """Start and stop services of a running stack and wait until that is done; the state afterwards.

    Raises:
        StackDown: it does not run.
        StartFailed: a service did not come up.
    """
    if not is_running(home):
        raise StackDown(f"no stack runs in {home}: `morphbatch up` starts it")
    write_wanted(home, (read_wanted(home) - _known(stop)) | _known(start))
    return _wait_until_ready(home, None)


def restart_service(home: Path, name: str) -> bool:
    """Stop and start one service of a running stack, and wait until it is ready; False: it does not run here.

    Raises:
        StartFailed: it did not come up.
    """
    if not is_running(home) or name not in read_wanted(home):
        return False
    try:
        change_services(home, stop=[name])
    finally:  # an interrupted restart must not leave it down
        change_services(home, start=[name])
    return True


def stop_stack(home: Path, patience_s: float = 180.0) -> bool:
    """Stop the stack of `home` and wait until every process is gone; False: it did not run.

    Raises:
        OutageError: it still runs after `patience_s`.
    """
    if not is_running(home):
        return False
    asked, deadline = False, time.monotonic() + patience_s
    while is_running(home):
        guard = (home / "stack.lock").read_text()  # empty for a moment, when it has just been taken
        if guard.isdecimal() and not asked:
            asked = True
            with contextlib.suppress(ProcessLookupError):  # a killed guard: its supervisor is stopping already
                os.kill(int(guard), signal.SIGTERM)
        if time.monotonic() > deadline:
            raise OutageError(f"the stack (pid {guard}) still runs; see {home / 'logs' / 'supervisor.log'}")
        time.sleep(_POLL_S)
    _forget_guard(home)
    return True


def is_running(home: Path) -> bool:
    """Whether a guard or supervisor holds the lock of `home`."""
    try:
        lock = os.open(home / "stack.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_state(home: Path) -> dict[str, Any]:
    """The state of the stack: `state` (down, starting, ready, stopping, failed), `error`, `services` by name.

    Of a service: `state`, `pid`, `port`, `started_at`, `restarts`, `trouble`, `log`.

    Raises:
        HomeDamaged: the supervisor's report of itself is not one.
    """
    state = _read_report(home)
    if state is None:
        return {"state": "down", "error": None, "services": {}}
    if not is_running(home):
        services = {
            name: {**report, "state": "down", "pid": None, "started_at": None}
            for name, report in state["services"].items()
        }
        return {**state, "state": "down", "services": services}
    return state


def _known(names: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(names)
    if unknown := wanted - set(SERVICES):
        raise ConfigurationError(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    return wanted


def _start_guard(
    home: Path, s3_flavour: S3Flavour | None, environment: Mapping[str, str], *, attached: bool
) -> subprocess.Popen[bytes]:
    (home / "logs").mkdir(exist_ok=True)
    (home / "stack.json").unlink(missing_ok=True)
    _forget_guard(home)
    arguments = [str(home), s3_flavour or "own", str(os.getpid()) if attached else "detached"]
    with (home / "logs" / "supervisor.log").open("ab") as log:
        _guards[home] = subprocess.Popen(
            [sys.executable, "-m", "services.local.guard", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment, "MORPHBATCH_HOME": str(home)},
            cwd=CHECKOUT,
            start_new_session=True,
        )
    return _guards[home]


def _forget_guard(home: Path) -> None:
    """Take the exit code of a guard that this process started and that has ended, or is about to."""
    if ended := _guards.pop(home, None):
        ended.wait()


def _wait_until_ready(
    home: Path, guard: subprocess.Popen[bytes] | None, on_change: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Wait until the supervisor has done what `wanted.json` says."""
    wanted, deadline = sorted(read_wanted(home)), time.monotonic() + _PATIENCE_S
    before: dict[str, Any] = {}
    while True:
        ended = guard.poll() is not None if guard else not is_running(home)
        if guard and guard.returncode == ALREADY_RUNS:  # another `up` was quicker
            guard = None
            continue
        state = _written_state(home)
        if on_change and state != before:
            on_change(state)
            before = state
        if state.get("error") and (ended or state.get("wanted") == wanted):
            raise StartFailed(state["error"])
        if ended:
            raise StartFailed(f"the stack ended\n{tail(home / 'logs' / 'supervisor.log', 15)}")
        if state.get("wanted") == wanted and _is_settled(state, wanted):
            return state
        if time.monotonic() > deadline:
            raise StartFailed(f"the stack is not ready after {_PATIENCE_S:.0f} s: {_troubles(state)}")
        time.sleep(_POLL_S)


def _require_answers(home: Path, names: frozenset[str]) -> None:
    """Ask each service itself: the supervisor sees that a process lives, not that it still does its work."""
    # Only here, since they bring half of the service's dependencies with them.
    from services.local.object_store import find_minio
    from services.local.plan import make_plan
    from services.local.settings import load_local_settings, settings_of

    installation = load_installation(home)
    if installation is None:
        raise StackDown(f"{home} holds no installation, although a stack runs in it")
    local = load_local_settings()
    for stage in make_plan(installation, settings_of(installation), find_minio(local.minio), local):
        for planned in stage:
            if isinstance(planned, Planned) and planned.name in names:
                try:
                    planned.make().ready()
                except OutageError as error:
                    raise StartFailed(
                        f"{planned.name} runs and does not answer ({error}); `morphbatch down {planned.name}` and"
                        f" `morphbatch up` start it again\n--- {home / 'logs' / planned.name}.log"
                    ) from error


def _written_state(home: Path) -> dict[str, Any]:
    return _read_report(home) or {"state": "starting", "services": {}}


def _read_report(home: Path) -> dict[str, Any] | None:
    """What the supervisor wrote about itself; None: nothing yet."""
    path = home / "stack.json"
    try:
        state = read_json_object(path, HomeDamaged)
    except HomeDamaged:
        if path.exists():
            raise
        return None
    services = state.get("services")
    if not isinstance(services, dict) or not all(isinstance(report, dict) for report in services.values()):
        raise HomeDamaged(f"{path} is not what `morphbatch up` writes: remove it")
    return {"state": "down", "error": None, **state}


def _is_settled(state: dict[str, Any], wanted: list[str]) -> bool:
    services = state["services"]
    return state["state"] == "ready" and all(
        services.get(name, {}).get("state") == "ready" if name in wanted else services[name]["state"] == "down"
        for name in {*wanted, *services}
    )


def _troubles(state: dict[str, Any]) -> str:
    waiting = [f"{name} {s['state']} ({s['trouble']})" for name, s in state["services"].items() if s["trouble"]]
    return "; ".join(waiting) or "no service reports trouble"
