"""Programs where the servers' user reaches them.

As root the servers run as another user (see `services.local.launch`), and what is installed below root's home is closed
to that one. It is given nothing there: the programs are linked into a folder of root's own that everybody may read.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PROGRAMS: Final = Path("/var/lib/morphbatch/programs")
_held: Final[dict[Path, int]] = {}
"""Descriptors that hold the trees this process runs servers from: a tree is removed when nobody holds it."""


def within_reach(parts: Mapping[str, Path]) -> Path | None:
    """A folder that the servers' user reaches and that holds each of `parts`, files or folders, under its name.

    None: that user reaches all of them where they are, as everybody does who is not root.
    """
    if os.geteuid() != 0 or all(_is_open(part) for part in parts.values() if part.exists()):
        return None
    files = dict(_files(parts))
    tree = _PROGRAMS / _fingerprint(files)
    with _alone():
        if not tree.exists():
            _remove_unused()
            _link(files, tree)
        if tree not in _held:
            _held[tree] = os.open(tree, os.O_RDONLY)
            fcntl.flock(_held[tree], fcntl.LOCK_SH)
    return tree


def program_within_reach(program: Path) -> str:
    """A program that is one file, where the servers' user reaches it."""
    return str((within_reach({program.name: program}) or program.parent) / program.name)


def _is_open(part: Path) -> bool:
    part = part.resolve()
    return bool(part.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in part.parents)


def _files(parts: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Every file by its name in the tree; a part that is not there has none, nor has a Python's `site-packages`."""
    for name, part in parts.items():
        if part.is_file():
            yield name, part
        for folder, folders, files in os.walk(part):
            folders[:] = [inner for inner in folders if inner != "site-packages"]
            inside = Path(name, os.path.relpath(folder, part))
            for file in files:
                yield f"{inside}/{file}", Path(folder, file)


def _fingerprint(files: Mapping[str, Path]) -> str:
    """Of what is installed; compiled Python may come later."""
    found = hashlib.sha256()
    for name, path in sorted(files.items()):
        if not name.endswith(".pyc"):
            state = path.stat()
            found.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return found.hexdigest()[:16]


@contextmanager
def _alone() -> Iterator[None]:
    for folder in (_PROGRAMS.parent, _PROGRAMS):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    lock = os.open(_PROGRAMS / "lock", os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_unused() -> None:
    """Trees that no stack runs from: of a checkout that is gone, or of programs that were replaced."""
    for tree in filter(Path.is_dir, _PROGRAMS.iterdir()):
        descriptor = os.open(tree, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(tree)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _link(files: Mapping[str, Path], tree: Path) -> None:
    """Make the tree under a draft's name, which is never taken for one."""
    draft = tree.with_suffix(".partial")
    draft.mkdir()
    for name, path in files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _take(path.resolve(), target)
    for folder, _, _ in os.walk(draft):
        Path(folder).chmod(0o755)  # whatever the umask
    draft.rename(tree)


def _take(file: Path, target: Path) -> None:
    """Share the bytes of a file that everybody may read, or else copy them."""
    mode = file.stat().st_mode
    if mode & 0o004:
        try:
            os.link(file, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copy2(file, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)
