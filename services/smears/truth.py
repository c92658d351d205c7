"""What is true of a drawn field, and the line of `truth.jsonl` that says so.

Keys and conventions are those of annotated real fields (`annotations.jsonl`): boxes `[x0, y0, x1, y1]` and polygons in
pixels; the head is the union of `acrosome`, `nucleus` and `vacuole`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.taxonomy import CLASSES

Polygon = tuple[tuple[float, float], ...]
BoxPx = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class TrueCell:
    """One drawn cell. A head cut by the border or the eyepiece is not `whole`; its parts end there too.

    Sizes and shares are those of the visible part of the head; of a double head, of both together. `kind` is `usual`,
    or why it is easily taken for something else.
    """

    id: int
    class_index: int
    head_box: BoxPx
    cell_box: BoxPx
    whole: bool
    parts: Mapping[str, tuple[Polygon, ...]]
    length_um: float
    width_um: float
    area_um2: float
    acrosome_share: float
    vacuole_share: float
    kind: str = "usual"

    def as_json(self) -> dict[str, Any]:
        """The cell as plain JSON values."""
        return {
            "id": self.id,
            "class": CLASSES[self.class_index].label,
            "class_index": self.class_index,
            "head_box": list(self.head_box),
            "cell_box": list(self.cell_box),
            "whole": self.whole,
            "parts": {name: [[list(p) for p in polygon] for polygon in found] for name, found in self.parts.items()},
            "length_um": self.length_um,
            "width_um": self.width_um,
            "area_um2": self.area_um2,
            "acrosome_share": self.acrosome_share,
            "vacuole_share": self.vacuole_share,
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class TrueObject:
    """Something that may be taken for a sperm and is none. One that the border cuts is not `whole`."""

    kind: str
    box: BoxPx
    whole: bool

    def as_json(self) -> dict[str, Any]:
        """The object as plain JSON values."""
        return {"kind": self.kind, "box": list(self.box), "whole": self.whole}


@dataclass(frozen=True, slots=True)
class FieldTruth:
    """Everything true of one drawn field."""

    width: int
    height: int
    um_per_px: float
    stain: str
    fault: str
    blur_um: float
    debris: int
    cells: tuple[TrueCell, ...]
    objects: tuple[TrueObject, ...] = ()

    def as_json(self, image: str) -> dict[str, Any]:
        """The line of `truth.jsonl` for the field stored as `image`."""
        return {
            "image": image,
            "width": self.width,
            "height": self.height,
            "um_per_px": self.um_per_px,
            "stain": self.stain,
            "fault": self.fault,
            "blur_um": round(self.blur_um, 4),
            "cells": [cell.as_json() for cell in self.cells],
            "objects": [item.as_json() for item in self.objects],
            "debris": self.debris,
        }
