"""Files and folders that appear whole or not at all: written under a draft name beside their place, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.errors import ConfigurationError

_DRAFT = ".partial"


class AlreadyThere(ConfigurationError, FileExistsError):
    """The file or folder to write exists, and it is never overwritten."""

    reason = "already_there"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a draft path beside `path`; what the block wrote there replaces `path` when the block ends well.

    The draft's name ends like that of `path`, for writers that go by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}{_DRAFT}.{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replace the file `path` by `text`, UTF-8. `private`: readable by its owner only, from the first byte on."""
    with whole_file(path) as draft:
        mode = 0o600 if private else 0o666
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
            stream.write(text)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty draft folder beside `path`; it becomes `path` when the block ends well.

    Args:
        path: the folder to make.
        replace: take the place of a folder that is there; else that is an error.

    Raises:
        AlreadyThere: the folder exists, and `replace` is not set.
    """
    if path.exists() and not replace:
        raise AlreadyThere(f"{path} exists and is never overwritten: choose another folder, or remove it first")
    draft, old = (path.with_name(f".{path.name}{suffix}") for suffix in (_DRAFT, ".old"))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
