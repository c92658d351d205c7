"""Checks a large manifest in a process of its own, with limits of memory and time, before it is read here.

What a hostile or broken manifest costs is then paid by that process: it meets a limit, and the manifest is rejected. A
process that ends for another reason says nothing of the manifest.
"""

import json
import logging
import resource
import signal
import subprocess
import sys
from typing import Final

from services.errors import OutageError
from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.validation import parse_manifest

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 256 * 2**10
"""A manifest up to this size is read at once: it cannot cost much, and most manifests are smaller."""

_MEMORY_BYTES: Final = 2 * 2**30
_CPU_S: Final = 60
_WALL_S: Final = 180.0
_REJECTED: Final = 3
_OUT_OF_MEMORY: Final = 4
_ALLOCATION_FAILED: Final = b"memory allocation of"  # the last words of Rust, which ends the process


class ManifestNotChecked(OutageError):
    """The process that checks it ended, and not for what the manifest costs: it is tried again with the next sweep."""

    reason = "checker_unavailable"


def parse_checked(data: bytes, *, lab: str, batch_id: str) -> Manifest:
    """`parse_manifest`, but a large manifest that cannot be checked within the limits is rejected.

    Raises:
        ManifestRejected: with every problem found, or that it costs too much.
        ManifestNotChecked: the manifest had no part in it; try again later.
    """
    if len(data) > SMALL_BYTES:
        _check_apart(data, lab, batch_id)
    return parse_manifest(data, lab=lab, batch_id=batch_id)


def _check_apart(data: bytes, lab: str, batch_id: str) -> None:
    command = [sys.executable, "-m", "services.intake.checked", lab, batch_id]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_WALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:  # it is held to processor time, so that the machine is slow
        raise ManifestNotChecked(f"lab {lab}, batch {batch_id}: the manifest could not be checked: {error}") from error
    if done.returncode == 0:
        return
    if done.returncode == _REJECTED:
        raise ManifestRejected([Problem(**problem) for problem in json.loads(done.stdout)])
    if done.returncode == -signal.SIGXCPU:
        raise _too_costly(f"{_CPU_S} s of processor time")
    if done.returncode == _OUT_OF_MEMORY or _ALLOCATION_FAILED in done.stderr:
        raise _too_costly(f"{_MEMORY_BYTES // 2**30} GiB of memory")
    log.error(
        "the check of a manifest ended with %d:\n%s", done.returncode, done.stderr[-4000:].decode(errors="replace")
    )
    raise ManifestNotChecked(
        f"lab {lab}, batch {batch_id}: the process that checks the manifest ended with {done.returncode}; the log says"
        " more, and it is tried again"
    )


def _too_costly(limit: str) -> ManifestRejected:
    return ManifestRejected([Problem("", "manifest_too_costly", f"takes more than {limit} to check: split the batch")])


def main(lab: str, batch_id: str) -> int:
    """Check the manifest on stdin; its problems are written to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, resource.RLIM_INFINITY))  # SIGXCPU, not SIGKILL: it tells why
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        parse_manifest(sys.stdin.buffer.read(), lab=lab, batch_id=batch_id)
    except ManifestRejected as error:
        sys.stdout.write(json.dumps([problem.as_json() for problem in error.problems]))
        return _REJECTED
    except MemoryError:
        return _OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
