"""Keeps the promise that nothing of a stack outlives it: `python -m services.local.guard HOME S3 PARENT`.

S3 is `minio`, `rclone` or `own` (what the home has); PARENT the process it shall end with, or `detached`.

The guard holds the lock of the home and starts the supervisor. Whatever dies, however, ends everything: if the
supervisor is killed, the kernel signals its servers and gives them to the guard (a "subreaper"), which ends those that
do not go; if the guard is killed, the kernel signals the supervisor, which stops its servers in order.
"""

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, cast

from services.atomic import write_text
from services.errors import MorphbatchError
from services.local.control import ALREADY_RUNS
from services.local.installation import S3Flavour, prepare_installation
from services.local.object_store import find_minio
from services.local.plan import make_plan
from services.local.settings import load_local_settings
from services.local.supervisor import Supervisor
from services.settings import load_settings

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ORPHAN_GRACE_S: Final = 15.0


def main(home: Path, s3_flavour: S3Flavour | None, parent: int | None) -> int:
    """Run the stack of `home` until it is told to stop; the exit code of the supervisor, or `ALREADY_RUNS`."""
    os.umask(0o077)  # what the stack keeps is nobody else's
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _lock(lock):
        return ALREADY_RUNS
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    if parent is not None:
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            return 1
    guard = os.getpid()
    supervisor = os.fork()  # single-threaded here; the child shares the lock, so that it is held until both are gone
    if supervisor == 0:
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)
        sys.exit(_supervise(home, s3_flavour))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: _pass_on(supervisor, number))
    _, status = os.waitpid(supervisor, 0)
    _end_orphans()
    if os.WIFSIGNALED(status):
        _record_death(home, os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _lock(descriptor: int) -> bool:
    """Take the lock. Who only asks whether it is taken holds it for a moment, so one refusal proves nothing."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _supervise(home: Path, s3_flavour: S3Flavour | None) -> int:
    try:
        local = load_local_settings()
        minio = find_minio(local.minio)
        installation = prepare_installation(home, s3_flavour, minio_available=minio is not None)
        plan = make_plan(installation, load_settings(), minio, local)
        environment = {**os.environ, "MORPHBATCH_HOME": str(home)}
        return Supervisor(installation, plan, environment).run()
    except MorphbatchError as error:
        write_text(
            home / "stack.json",
            json.dumps({"state": "failed", "error": str(error), "services": {}}) + "\n",
            private=True,
        )
        return 1


def _pass_on(supervisor: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, number)


def _children() -> list[int]:
    tasks = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in tasks.read_text().split()]


def _end_orphans() -> None:
    """Wait for what the supervisor left behind, which the kernel gave to this process, and end what does not go."""
    deadline = time.monotonic() + _ORPHAN_GRACE_S
    while children := _children():
        for child in children:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _record_death(home: Path, number: int) -> None:
    path = home / "stack.json"
    state = json.loads(path.read_text()) if path.exists() else {"services": {}}
    if state.get("state") in ("stopped", "failed"):
        return  # it had done its work, and was on its way out
    for service in state["services"].values():
        service.update(state="down", pid=None, started_at=None)
    error = f"the supervisor was ended by {signal.Signals(number).name}"
    write_text(path, json.dumps({**state, "state": "failed", "error": error}, indent=2) + "\n", private=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _, folder, s3, tied_to = sys.argv
    sys.exit(
        main(
            Path(folder),
            None if s3 == "own" else cast(S3Flavour, s3),
            None if tied_to == "detached" else int(tied_to),
        )
    )
