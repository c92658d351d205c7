"""Reads a folder of images as a batch: its manifest, the files' checksums, and what it leaves aside.

A sub-folder is a slide; images directly in the folder are one slide named after it. A `manifest.json` in the folder is
taken as it is, completed by what is given and by the checksums it leaves out.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyascii import anyascii

from services.errors import PermanentError
from services.intake.manifest import SCHEMA, Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.tree import IMAGE_SUFFIXES, LeftOut, Tree, read_tree, require_nothing_lost
from services.intake.validation import MAX_MANIFEST_BYTES, parse_manifest, read_json
from services.keys import MANIFEST_NAME

_STAND_IN_SHA256: Final = "0" * 64
_STAND_IN_BATCH: Final = "batch-id-follows"
_READ_BYTES: Final = 2**20
_HASHING_THREADS: Final = 2


class UnusableFolder(PermanentError):
    """The folder does not exist, or holds nothing that can be submitted."""

    reason = "unusable_folder"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An image on this machine and its place in the batch. `md5` is the ETag it has after a plain upload."""

    path: Path
    key: str
    size: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch as it can be uploaded. `left_out` are files of the folder that are no part of it."""

    manifest: Manifest
    files: tuple[SourceFile, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(file.size for file in self.files)


Advance = Callable[[int], None]
"""Called from several threads with the bytes done since the last call."""


def read_folder(
    folder: Path,
    *,
    lab: str | None = None,
    batch_id: str | None = None,
    um_per_px: float | None = None,
    stain: str | None = None,
    collected_at: str | None = None,
    urgent: bool = False,
    without_lost: bool = False,
    advance: Advance = lambda _: None,
) -> Delivery:
    """The batch that lies in `folder`. What is given overrides what the folder's own manifest says.

    Without a batch id from either, it is made of the folder's name and its content, so that the same folder submitted
    twice is the same batch. `without_lost`: images that cannot be taken are left out; else they are an error.

    Raises:
        UnusableFolder: there is no such folder, or no image in it.
        ManifestRejected: with every problem; each path is followed by the file or folder it stands for.
    """
    if not folder.is_dir():
        raise UnusableFolder(f"{folder}: no such folder")
    own = folder / MANIFEST_NAME
    tree = read_tree(folder)
    left_out = tuple(entry for entry in tree.left_out if entry.path != own)
    if own.is_file():
        document = _given_document(own)
        paths = {key: folder / key for _, key in _keys(document)}
        named = set(paths.values())
        unnamed = [path for images in tree.slides.values() for path in images if path not in named]
        left_out = (
            *(entry for entry in left_out if entry.path not in named),
            *(LeftOut(path, "an image that the folder's manifest does not name", lost=True) for path in unnamed),
        )
    else:
        document, paths = _drawn_up(tree)
    lost = () if without_lost else left_out
    if not paths:
        require_nothing_lost(lost, folder)
        raise UnusableFolder(f"{folder}: {_nothing_in_it(left_out, folder)}")
    generate_name = batch_id is None and not isinstance(document.get("batch_id"), str)
    document["lab"] = lab if lab is not None else document.get("lab")
    document["batch_id"] = batch_id or (_STAND_IN_BATCH if generate_name else document["batch_id"])
    if urgent:
        document["urgent"] = True
    for slide in _objects(document.get("slides")):
        if um_per_px is not None:
            slide["um_per_px"] = um_per_px
        if stain is not None:
            slide["stain"] = stain
        if collected_at is not None:
            slide["collected_at"] = collected_at
    unstated = _fill_in_checksums(document)
    manifest = _checked(document, folder)  # before an hour is spent on checksums; and every key is safe from here on
    require_nothing_lost(lost, folder)
    files = _read_files(manifest, paths, unstated, folder, advance)
    checksums = {file.key: file.sha256 for file in files}
    for field, key in _keys(document):
        field["sha256"] = checksums[key]
    if generate_name:
        document["batch_id"] = f"{_slug(folder.resolve().name)[:40]}-{_content_hash(document)[:10]}"
    return Delivery(_checked(document, folder), files, left_out)


def _content_hash(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _given_document(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ManifestRejected([Problem("", "manifest_too_large", f"has more than {MAX_MANIFEST_BYTES} bytes")])
    document = read_json(path.read_bytes())
    if not isinstance(document, dict):
        raise ManifestRejected([Problem("", "manifest_not_json", "must be a JSON object")])
    return document


def _drawn_up(tree: Tree) -> tuple[dict[str, Any], dict[str, Path]]:
    slides: list[dict[str, Any]] = []
    paths: dict[str, Path] = {}
    named: dict[str, str] = {}
    problems: list[Problem] = []
    for slide_folder, images in tree.slides.items():
        own = slide_folder.resolve().name
        name = _identifier(own)
        if name is None:
            problems.append(Problem(own, "slide_name_unusable", "has no letter or digit for a slide_id: rename it"))
            continue
        if (other := named.setdefault(name.casefold(), own)) != own:
            message = f"both this folder and {other!r} would be slide {name}: rename one of them"
            problems.append(Problem(own, "manifest_duplicate_slide", message))
            continue
        fields = []
        for image in images:
            key = f"{name}/{unicodedata.normalize('NFC', image.name)}"
            if key in paths:
                message = f"reads like {paths[key].name!r} but has other code points: rename one"
                problems.append(Problem(f"{own}/{image.name}", "manifest_duplicate_field", message))
            fields.append({"key": key})
            paths[key] = image
        slides.append({"slide_id": name, "specimen": name, "replicate": 1, "stain": "unknown", "fields": fields})
    if problems:
        raise ManifestRejected(problems)
    return {"schema": SCHEMA, "slides": slides}, paths


def _nothing_in_it(left_out: tuple[LeftOut, ...], folder: Path) -> str:
    kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
    seen = "; ".join(f"{entry.path.relative_to(folder)}: {entry.why}" for entry in left_out[:5])
    return f"no image ({kinds}) in the folder or its sub-folders" + (f" ({seen})" if seen else "")


def _identifier(name: str) -> str | None:
    """`name` in ASCII: letters of other scripts are transliterated; `None` where nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", anyascii(unicodedata.normalize("NFC", name))).strip("-._")[:63] or None


def _slug(name: str) -> str:
    return (_identifier(name) or "batch").lower()


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _keys(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for slide in _objects(document.get("slides")):
        for field in _objects(slide.get("fields")):
            if isinstance(field.get("key"), str):
                yield field, field["key"]


def _fill_in_checksums(document: dict[str, Any]) -> set[str]:
    """Put a stand-in where a checksum is left out; returns the keys of those fields."""
    unstated = set()
    for field, key in _keys(document):
        if field.get("sha256") is None:
            field["sha256"] = _STAND_IN_SHA256
            unstated.add(key)
    return unstated


def _checked(document: dict[str, Any], folder: Path) -> Manifest:
    """The manifest; every problem is told with the file it stands for, since here nobody but its owner reads it."""
    try:
        return parse_manifest(
            json.dumps(document).encode(), lab=str(document["lab"]), batch_id=str(document["batch_id"])
        )
    except ManifestRejected as error:
        raise ManifestRejected([_located(problem, document, folder) for problem in error.problems]) from error


def _located(problem: Problem, document: dict[str, Any], folder: Path) -> Problem:
    found = re.match(r"slides\[(\d+)\](?:\.fields\[(\d+)\])?", problem.path)
    place: Any = None
    if found:
        place = document["slides"][int(found[1])]
        name = place.get("slide_id") if isinstance(place, dict) else None
        if found[2] and isinstance(place, dict):
            field = place["fields"][int(found[2])]
            name = field.get("key") if isinstance(field, dict) else name
        if isinstance(name, str):
            hint = "; --um-per-px X gives it for all slides" if problem.reason == "um_per_px_missing" else ""
            return Problem(f"{problem.path} ({name})", problem.reason, problem.message + hint)
    if problem.path == "lab" and document["lab"] is None:
        return Problem("lab", problem.reason, "is required: --lab LAB")
    if problem.path == "batch_id":
        return Problem(f"batch_id ({folder.resolve().name})", problem.reason, f"{problem.message}; see --batch")
    return problem


def _read_files(
    manifest: Manifest, paths: dict[str, Path], unstated: set[str], folder: Path, advance: Advance
) -> tuple[SourceFile, ...]:
    """Checksum of every image.

    Raises:
        ManifestRejected: files that are not there, or are not what the folder's manifest says.
    """
    places = [
        (f"slides[{i}].fields[{j}]", field) for i, s in enumerate(manifest.slides) for j, field in enumerate(s.fields)
    ]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        read = list(pool.map(lambda place: _read_file(paths[place[1].key], place[1].key, advance), places))
    problems: list[Problem] = []
    for (where, field), file in zip(places, read, strict=True):
        if file is None:
            message = f"no such file in {folder}"
            problems.append(Problem(f"{where}.key ({field.key})", "field_missing", message))
        elif field.key not in unstated and file.sha256 != field.sha256:
            message = f"the manifest states another checksum than the file has ({file.sha256[:12]}…)"
            problems.append(Problem(f"{where}.sha256 ({field.key})", "checksum_mismatch", message))
    if problems:
        raise ManifestRejected(problems)
    return tuple(file for file in read if file is not None)


def _read_file(path: Path, key: str, advance: Advance) -> SourceFile | None:
    if not path.is_file():
        return None
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    return SourceFile(path, key, size, sha256.hexdigest(), md5.hexdigest())
