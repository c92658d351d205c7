"""What is easily taken for something else: pin heads, two heads of one cell or of two, heads without a tail, dirt.

None of it is among the usual cells of a field: it comes only where a field's spec asks for it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import cv2
import numpy as np

from services.smears import flagella, head_shapes
from services.smears.cells import CellShape, shape_cell
from services.smears.debris import paint_cocci, paint_dark_body, paint_round_cell, paint_white_cell
from services.smears.flagella import Flagellum
from services.smears.head_shapes import Points
from services.smears.painting import PaintedHead, Pose, Sheet, paint_cell
from services.smears.stains import Palette
from services.taxonomy import CLASS_NAMES

_DEEPEST_OVERLAP_UM: Final = 0.9
_WIDEST_GAP_UM: Final = 0.3
_WITH_A_TAIL: Final = ("Normal", "Normal", "TaperedHead", "PyriformHead", "RoundHead", "VacuolatedHead")


class Doubtful(StrEnum):
    """The first four are sperm, the others are not."""

    PIN_HEAD = "pin_head"  # of 1 to 3.6 µm², on a usual midpiece
    DOUBLE_HEAD = "double_head"  # two heads on one neck, from a hair apart to grown together
    TOUCHING = "touching"  # two sperm whose heads touch or lie over each other
    TAIL_ACROSS = "tail_across"  # a sperm, and another's tail over its head
    ISOLATED_HEAD = "isolated_head"  # a head without midpiece and tail
    COCCI = "cocci"
    DARK_BODY = "dark_body"  # a round, evenly dark body, as a pyknotic nucleus
    ROUND_CELL = "round_cell"
    WHITE_CELL = "white_cell"


@dataclass(frozen=True, slots=True)
class PaintedCell:
    """A cell as it was painted; `kind` is why it is doubtful."""

    shape: CellShape
    pose: Pose
    heads: tuple[PaintedHead, ...]
    kind: Doubtful


@dataclass(frozen=True, slots=True)
class PaintedObject:
    """Something that is no sperm: its outlines in µm on the sheet."""

    kind: Doubtful
    outlines: tuple[Points, ...]


def paint_doubtful(
    rng: np.random.Generator, sheet: Sheet, palette: Palette, kind: Doubtful, pose: Pose
) -> tuple[list[PaintedCell], list[PaintedObject]]:
    """Paint one thing of `kind` at `pose`: the sperm that it consists of, and what of it is none."""
    if kind in _DIRT:
        outlines = _DIRT[kind](rng, sheet, palette, pose.x, pose.y)
        return [], [PaintedObject(kind, tuple(outlines))]
    cells = []
    for shape, where in _cells(rng, kind, pose):
        heads = paint_cell(rng, sheet, shape, where, palette)
        cells.append(PaintedCell(shape, where, heads, kind))
    if kind is Doubtful.ISOLATED_HEAD:
        return [], [PaintedObject(kind, tuple(head.outline for cell in cells for head in cell.heads))]
    return cells, []


_DIRT: Final = {
    Doubtful.COCCI: paint_cocci,
    Doubtful.DARK_BODY: paint_dark_body,
    Doubtful.ROUND_CELL: paint_round_cell,
    Doubtful.WHITE_CELL: paint_white_cell,
}


def _cells(rng: np.random.Generator, kind: Doubtful, pose: Pose) -> list[tuple[CellShape, Pose]]:
    if kind is Doubtful.PIN_HEAD:
        return [(_small_pin_head(rng), pose)]
    if kind is Doubtful.DOUBLE_HEAD:
        return [(_double_head(rng), pose)]
    if kind is Doubtful.ISOLATED_HEAD:
        return [(replace(_with_tail(rng), flagella=()), pose)]
    first, second = _with_tail(rng), _with_tail(rng)
    if kind is Doubtful.TAIL_ACROSS:
        return [(first, pose), (second, _tail_over(rng, pose, second))]
    return [(first, pose), (second, _beside(rng, first, pose, second))]


def _with_tail(rng: np.random.Generator) -> CellShape:
    return shape_cell(rng, CLASS_NAMES.index(str(rng.choice(_WITH_A_TAIL))))


def _small_pin_head(rng: np.random.Generator) -> CellShape:
    """Smaller than those of the class as it is drawn for training, and otherwise like them."""
    head = head_shapes.pin_head(rng, rng.uniform(1.0, 3.6))
    neck = flagella.midpiece(rng, head.base, np.pi + rng.normal(0.0, 0.08), width=rng.uniform(0.45, 0.65))
    return CellShape(CLASS_NAMES.index("PinHead"), (head,), (Flagellum(neck, flagella.usual_tail(rng, neck)),))


def _double_head(rng: np.random.Generator) -> CellShape:
    """Wider apart, and closer together, than those of the class as it is drawn for training."""
    pair = head_shapes.double_heads(rng, spread=rng.uniform(np.radians(15), np.radians(90)), aside=(0.3, 0.9))
    x, y = np.mean([head.base for head in pair], axis=0)
    neck = flagella.midpiece(
        rng, (float(x) + 0.25, float(y)), np.pi + rng.normal(0.0, 0.1), width=rng.uniform(0.55, 0.8)
    )
    return CellShape(CLASS_NAMES.index("DoubleHead"), pair, (Flagellum(neck, flagella.usual_tail(rng, neck)),))


def _beside(rng: np.random.Generator, first: CellShape, pose: Pose, second: CellShape) -> Pose:
    """A pose of `second`, turned anyhow, so near to `first` that their heads nearly touch, touch, or overlap."""
    outline = pose.place(first.heads[0].outline).astype(np.float32)
    angle, way = rng.uniform(-np.pi, np.pi, 2)
    wanted = rng.uniform(-_WIDEST_GAP_UM, _DEEPEST_OVERLAP_UM)
    for reach in np.arange(7.0, 0.5, -0.05):
        there = Pose(pose.x + float(reach * np.cos(way)), pose.y + float(reach * np.sin(way)), float(angle))
        other = there.place(second.heads[0].outline).astype(np.float32)
        inside = max(cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in other)
        if inside >= wanted:
            return there
    return there


def _tail_over(rng: np.random.Generator, pose: Pose, second: CellShape) -> Pose:
    """A pose of `second` from which its tail, 6 to 14 µm behind its head, runs over or past the place of `pose`."""
    strand = second.flagella[0].tail.points
    along = strand[min(int(rng.uniform(6.0, 14.0) / 0.25), len(strand) - 1)]
    turned = Pose(0.0, 0.0, float(rng.uniform(-np.pi, np.pi)))
    x, y = turned.place(along[None])[0] + rng.normal(0.0, 0.9, 2)
    return Pose(pose.x - float(x), pose.y - float(y), turned.angle)
