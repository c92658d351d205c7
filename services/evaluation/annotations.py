"""Annotated fields: a folder with `annotations.jsonl`, or the `truth.jsonl` of drawn smears; every cell is outlined."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.documents import read_json_lines
from services.errors import PermanentError

HEAD_PARTS: Final = ("acrosome", "nucleus", "vacuole")
_FILES: Final = ("annotations.jsonl", "truth.jsonl")
_SUBPIXEL_BITS: Final = 4

BoxPx = tuple[float, float, float, float]


class AnnotationsUnreadable(PermanentError):
    """The folder has no annotations, or they are not as expected."""

    reason = "annotations_unreadable"


class Part(StrEnum):
    """Which fields are scored. Parameters are set on `TUNING`; `HOLDOUT` is what tuning never saw."""

    ALL = "all"
    TUNING = "tuning"
    HOLDOUT = "holdout"


@dataclass(frozen=True, slots=True)
class AnnotatedCell:
    """One annotated cell: its head box in pixels, and the polygons `[n, 2]` of each part.

    Of drawn cells it is known whether they are `whole`, and what `kind` of doubtful cell they are, or `usual`.
    """

    id: int
    head_box: BoxPx
    parts: Mapping[str, tuple[NDArray[np.float64], ...]]
    kind: str = "usual"
    whole: bool = True

    def mask(self, shape: tuple[int, int], parts: tuple[str, ...] = HEAD_PARTS) -> NDArray[np.bool_]:
        """The union of `parts` as a mask of a field of `shape` (height, width)."""
        canvas = np.zeros(shape, np.uint8)
        for polygon in (p for part in parts for p in self.parts.get(part, ())):
            fixed_point = np.round(polygon * (1 << _SUBPIXEL_BITS)).astype(np.int32)
            cv2.fillPoly(canvas, [fixed_point], 1, shift=_SUBPIXEL_BITS)
        return canvas.astype(np.bool_)

    def head_sides(self) -> tuple[float, float]:
        """Length and width of the head in pixels: sides of the minimum-area rectangle of its outline points."""
        points = np.concatenate([p for part in HEAD_PARTS for p in self.parts.get(part, ())])
        sides = cv2.minAreaRect(points.astype(np.float32))[1]
        return max(sides), min(sides)


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """Something that is no sperm, of a drawn field: what it is, and its box in pixels."""

    kind: str
    box: BoxPx
    whole: bool


@dataclass(frozen=True, slots=True)
class AnnotatedField:
    """An annotated field: the name that its folder gives it, and the path of its image."""

    name: str
    path: Path
    cells: tuple[AnnotatedCell, ...]
    objects: tuple[AnnotatedObject, ...] = ()


def part_of(name: str) -> Part:
    """The part that a field belongs to, from its name alone: three fifths are for tuning."""
    return Part.TUNING if hashlib.sha256(name.encode()).digest()[0] % 5 < 3 else Part.HOLDOUT


def read_annotations(folder: Path, part: Part = Part.ALL) -> list[AnnotatedField]:
    """The annotated fields of `folder` that belong to `part`, in the order of the file.

    Raises:
        AnnotationsUnreadable: there is no such file, or a line of it is not what it should be.
    """
    source = next((p for name in _FILES if (p := folder / name).is_file()), None)
    if source is None:
        raise AnnotationsUnreadable(
            f"{folder} has no {' or '.join(_FILES)}; name the folder that holds it and its images"
        )
    fields = []
    for place, entry in read_json_lines(source, AnnotationsUnreadable):
        try:
            if part in (Part.ALL, part_of(entry["image"])):
                fields.append(
                    AnnotatedField(
                        entry["image"],
                        folder / entry["image"],
                        tuple(_cell(cell) for cell in entry["cells"]),
                        tuple(
                            AnnotatedObject(str(item["kind"]), _box(item["box"]), bool(item["whole"]))
                            for item in entry.get("objects", ())
                        ),
                    )
                )
        except (ValueError, KeyError, TypeError) as error:
            raise AnnotationsUnreadable(f"{place}: {error!r}") from error
    if not fields:
        raise AnnotationsUnreadable(f"{source} has no field of the part '{part}'")
    return fields


def _cell(entry: dict[str, object]) -> AnnotatedCell:
    parts = entry["parts"]
    if not isinstance(parts, dict):
        raise TypeError("a cell must have parts")
    polygons = {
        name: tuple(np.asarray(p, np.float64).reshape(-1, 2) for p in outlines) for name, outlines in parts.items()
    }
    if not any(polygons.get(name) for name in HEAD_PARTS):
        raise ValueError(f"a cell has none of the parts {', '.join(HEAD_PARTS)}")
    kind, whole = str(entry.get("kind", "usual")), bool(entry.get("whole", True))
    return AnnotatedCell(int(str(entry["id"])), _box(entry["head_box"]), polygons, kind, whole)


def _box(box: object) -> BoxPx:
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("a box must be [x0, y0, x1, y1]")
    return box[0], box[1], box[2], box[3]
