"""Checks a large manifest in a process of its own, with limits of memory and time, before it is read here.

What a hostile or broken manifest costs is then paid by that process: it is killed, and the manifest is rejected.
"""

import json
import resource
import subprocess
import sys
from typing import Final

from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.validation import parse_manifest

SMALL_BYTES: Final = 256 * 2**10
"""A manifest up to this size is read at once: it cannot cost much, and most manifests are smaller."""

_MEMORY_BYTES: Final = 2 * 2**30
_CPU_S: Final = 60
_WALL_S: Final = 180.0
_REJECTED: Final = 3


def parse_checked(data: bytes, *, lab: str, batch_id: str) -> Manifest:
    """`parse_manifest`, but a large manifest that cannot be checked within the limits is rejected.

    Raises:
        ManifestRejected: with every problem found, or that it costs too much.
    """
    if len(data) > SMALL_BYTES:
        _check_apart(data, lab, batch_id)
    return parse_manifest(data, lab=lab, batch_id=batch_id)


def _check_apart(data: bytes, lab: str, batch_id: str) -> None:
    command = [sys.executable, "-m", "services.intake.checked", lab, batch_id]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise _too_costly(f"{_WALL_S:.0f} s") from None
    if done.returncode == _REJECTED:
        raise ManifestRejected([Problem(**problem) for problem in json.loads(done.stdout)])
    if done.returncode != 0:
        raise _too_costly(f"{_CPU_S} s of CPU time or {_MEMORY_BYTES // 2**30} GiB of memory")


def _too_costly(limit: str) -> ManifestRejected:
    return ManifestRejected([Problem("", "manifest_too_costly", f"takes more than {limit} to check: split the batch")])


def main(lab: str, batch_id: str) -> int:
    """Check the manifest on stdin; its problems are written to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        parse_manifest(sys.stdin.buffer.read(), lab=lab, batch_id=batch_id)
    except ManifestRejected as error:
        sys.stdout.write(json.dumps([problem.as_json() for problem in error.problems]))
        return _REJECTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
