"""What lies in a folder that someone hands in: its images by slide, and why every other file is left out.

An image is never lost silently: a file that is one, or was meant to be one, and cannot be taken, is a `lost` entry
that stops the submission. What systems and programs leave beside images is listed, and stops nothing.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.intake.problems import ManifestRejected, Problem

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib"})
_FORMATS: Final[dict[str, str]] = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".avif"), "a phone's HEIF image"),
    **dict.fromkeys((".webp", ".gif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf"), "an image in a web format"),
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"), "a camera's raw image"
    ),
    **dict.fromkeys(
        (
            *(".svs", ".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".isyntax", ".czi", ".zvi", ".lsm"),
            *(".lif", ".xlif", ".nd2", ".vsi", ".ets", ".oib", ".oif", ".oir", ".qptiff", ".sld", ".sldy", ".ims"),
            *(".dcm", ".dicom", ".psd", ".xcf", ".lei", ".liff", ".ipw", ".stk", ".nd", ".dv", ".r3d", ".mrc"),
        ),
        "an image in a program's own format",
    ),
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"), "an archive"),
    **dict.fromkeys((".avi", ".mp4", ".mov", ".mkv", ".wmv", ".mpg", ".mpeg"), "a video"),
}
_UNFINISHED: Final = frozenset(
    {".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".temp", ".opdownload", ".aria2", ".!ut"}
)
_ELSEWHERE: Final[dict[str, str]] = {
    ".icloud": "a placeholder of an image that is still in the cloud: download it",
    **dict.fromkeys((".lnk", ".url", ".webloc"), "a shortcut to an image: put the image itself here"),
    **dict.fromkeys((".gpg", ".pgp", ".age", ".enc"), "an encrypted image: decrypt it"),
}
_SYSTEM_FOLDERS: Final = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin"),
        *("system volume information", "lost+found", "network trash folder", "temporary items", "recycler", "thumbs"),
        *("desktop.ini", "recycled", "found.000"),
    }
)
_MAGIC: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is no part of the batch, and why. `lost`: it is an image, or was meant to be one."""

    path: Path
    why: str
    lost: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """The images of each slide's folder, in natural order; the folder itself may be one. And all that is left out."""

    slides: dict[Path, tuple[Path, ...]]
    left_out: tuple[LeftOut, ...]


def read_tree(root: Path) -> Tree:
    """Sort every file below `root`. A sub-folder is a slide; its images lie in it, or all in one folder below it."""
    images: dict[Path, list[Path]] = defaultdict(list)
    left_out: list[LeftOut] = []
    for path, trouble in _files(root):
        why, lost = trouble or _why_not(path, root)
        if why is None:
            images[path.parent].append(path)
        else:
            left_out.append(LeftOut(path, why, lost))
    slides: dict[Path, tuple[Path, ...]] = {}
    by_slide: dict[Path, list[Path]] = defaultdict(list)
    for folder in images:
        by_slide[root if folder == root else root / folder.relative_to(root).parts[0]].append(folder)
    for slide in sorted(by_slide, key=lambda path: (path != root, natural(path))):
        folders = by_slide[slide]
        chosen = slide if slide in folders else folders[0] if len(folders) == 1 else None
        if chosen is not None:
            slides[slide] = tuple(sorted(images[chosen], key=natural))
        for folder in folders:
            if folder != chosen:
                why = f"lies deeper than the images of slide {slide.name}: put each slide's images into one folder"
                left_out += [LeftOut(path, why, lost=True) for path in images[folder]]
    return Tree(slides, tuple(sorted(left_out, key=lambda entry: entry.path)))


def require_nothing_lost(left_out: tuple[LeftOut, ...], root: Path) -> None:
    """Refuse a folder of which images would be lost.

    Raises:
        ManifestRejected: names each of them and why it cannot be taken.
    """
    lost = [entry for entry in left_out if entry.lost]
    if lost:
        raise ManifestRejected([Problem(_shown(e.path, root), "image_left_out", e.why) for e in lost])


def natural(path: Path) -> list[tuple[int, str]]:
    """A sort key: field-2 before field-10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


_Trouble = tuple[str, bool]


def _files(root: Path) -> list[tuple[Path, _Trouble | None]]:
    """Every file below `root`, links followed once, and every folder that cannot be listed."""
    found: list[tuple[Path, _Trouble | None]] = []
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            why = f"this folder cannot be read ({error.strerror}): its images would be missing"
            found.append((folder, (why, True)))
            continue
        if (status.st_dev, status.st_ino) in seen:
            found.append((folder, ("a link to a folder that is read already", False)))
            continue
        seen.add((status.st_dev, status.st_ino))
        if not entries and folder != root:
            found.append((folder, ("an empty folder", False)))
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                # Links last: a slide is called by its own folder, not by a link to it.
                waiting.insert(0 if entry.is_symlink() else len(waiting), path)
            else:
                found.append((path, None))
    return found


def _why_not(path: Path, root: Path) -> tuple[str | None, bool]:
    """Why a file is no image of the batch, and whether an image is lost by that; `None`: it is one."""
    inside = path.relative_to(root).parts[:-1]
    if any(part.startswith(".") or part.casefold() in _SYSTEM_FOLDERS for part in inside):
        return "in a folder that the system or a program created", False
    suffix, named = path.suffix.casefold(), Path(path.stem).suffix.casefold()
    if suffix in _ELSEWHERE and (named in IMAGE_SUFFIXES or named in _FORMATS):  # the system hides some of these
        return _ELSEWHERE[suffix], True
    if path.name.startswith((".", "~$")):
        return "a hidden file", False
    if suffix in _UNFINISHED:
        if named in IMAGE_SUFFIXES or named in _FORMATS or _begins_like_an_image(path):
            return "an unfinished upload or download: wait until it is complete, or remove it", True
        return "a temporary file", False
    if suffix in _FORMATS:
        return f"{_FORMATS[suffix]} ({suffix.removeprefix('.')}): export it as TIFF, PNG or JPEG", True
    if suffix in IMAGE_SUFFIXES:
        return _why_unreadable(path)
    if _begins_like_an_image(path):
        return "an image without an image suffix: rename it, for example to .tif or .jpg", True
    return "not an image", False


def _why_unreadable(path: Path) -> tuple[str | None, bool]:
    if path.is_symlink() and not path.exists():
        return "a link to a file that does not exist", True
    if not path.is_file():
        return "not a regular file", True
    try:
        with path.open("rb"):
            return None, False
    except OSError as error:
        return f"cannot be read ({error.strerror})", True


def _begins_like_an_image(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(8).startswith(_MAGIC)
    except OSError:
        return False
