"""Becomes a server that cannot outlive its supervisor: `python launch.py PARENT SIGNAL [--data DIR] COMMAND …`.

A small program of its own, since every step must happen in the server's process, between fork and exec, where a running
interpreter is no safe place for code.

With `--data DIR` the command finds that folder as `DATA`: a descriptor, opened here. Started by root, the server then
runs as an unprivileged user, who owns the folder and need not be able to walk the way to it: a home below /root stays
closed to everybody else, that user's other processes too. And whatever the folder is called, `DATA` is a plain word.
"""

import ctypes
import os
import pwd
import sys

_DATA_FD = 3
DATA = f"/proc/self/fd/{_DATA_FD}"
"""The server's own folder, as its command line and its configuration name it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_USERS = ("morphbatch", "nobody")  # the first of them that this machine has

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _open_data(folder: str) -> None:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    os.dup2(descriptor, _DATA_FD)
    os.set_inheritable(_DATA_FD, True)


def _become_unprivileged(folder: str) -> None:
    """Drop root with all its capabilities, after the folder was given away."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next((known[name] for name in _USERS if name in known), None)
    if user is None:
        sys.exit("there is no user `nobody` to run the servers as: make a system user `morphbatch`")
    try:
        _give(folder, user.pw_uid, user.pw_gid)
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        sys.exit(f"root cannot give {folder} to {user.pw_name} and become it ({error}): use an ordinary user instead")
    os.environ["HOME"] = DATA


def _give(folder: str, uid: int, gid: int) -> None:
    """Make the user own what is in the folder, and last itself. What is in folders that they own is theirs already."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_uid == uid:
                continue
            if entry.is_dir(follow_symlinks=False):
                _give(entry.path, uid, gid)
            else:
                os.chown(entry.path, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and replace it by the command."""
    parent, signal_number, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    os.umask(0o077)
    if command[0] == "--data":
        folder, command = command[1], command[2:]
        _open_data(folder)
        if os.geteuid() == 0:
            _become_unprivileged(folder)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # After the change of user, which clears it.
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    os.execvp(command[0], command)  # noqa: S606 - the command is the supervisor's own


if __name__ == "__main__":
    main(sys.argv[1:])
