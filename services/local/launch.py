"""Becomes a server that cannot outlive its supervisor: `python launch.py PARENT SIGNAL [--data DIR] COMMAND …`.

A small program of its own, since both steps must happen in the server's process, between fork and exec, where a running
interpreter is no safe place for code. With `--data DIR` and as root it becomes the unprivileged user who owns that
folder, since Postgres refuses to run as root.
"""

import ctypes
import os
import pwd
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _prctl(option: int, *arguments: int) -> None:
    if _libc.prctl(option, *(ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4])) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def own(data: Path) -> tuple[int, int]:
    """Give `data` to an unprivileged user, and keep that user for as long as the folder is there; its uid and gid."""
    kept = data.stat()
    if kept.st_uid != 0:
        return kept.st_uid, kept.st_gid
    entries = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    name = next((name for name in ("postgres", "nobody") if name in entries), None)
    uid, gid = (entries[name].pw_uid, entries[name].pw_gid) if name else (65534, 65534)
    os.chown(data, uid, gid)
    return uid, gid


def _become(uid: int, gid: int, data: Path, program: str) -> None:
    """Drop root. Where the way to the program or the data is closed to that user, keep the right to walk it.

    A checkout below /root (0700) is such a place.
    """
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o077)
    if os.access(program, os.X_OK) and os.access(data, os.W_OK):
        return
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (_CapabilityData * 2)()
    words[0] = _CapabilityData(*(1 << _CAP_DAC_OVERRIDE,) * 3)
    if _libc.capset(ctypes.byref(header), words) != 0:
        raise OSError(ctypes.get_errno(), f"user {uid} cannot reach {data} or {program}; set MORPHBATCH_HOME elsewhere")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and replace it by the command."""
    parent, signal_number, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if command[0] == "--data":
        data, command = Path(command[1]), command[2:]
        if os.geteuid() == 0:
            _become(*own(data), data, command[0])
    # After the change of user, which clears it.
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    os.execvp(command[0], command)  # noqa: S606 - the command is the supervisor's own


if __name__ == "__main__":
    main(sys.argv[1:])
