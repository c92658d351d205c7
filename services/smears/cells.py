"""One cell of each of the 18 classes: a head and flagella, in which one thing is wrong, or nothing.

Every class has one defect and is otherwise normal, as the published set has one label a cell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.smears import flagella, head_shapes
from services.smears.flagella import Flagellum
from services.smears.head_shapes import HeadShape
from services.taxonomy import CLASS_NAMES


@dataclass(frozen=True, slots=True)
class CellShape:
    """Geometry of a cell in µm; its heads together are centred on the origin, apex to +x."""

    class_index: int
    heads: tuple[HeadShape, ...]
    flagella: tuple[Flagellum, ...]


def shape_cell(rng: np.random.Generator, class_index: int) -> CellShape:
    """A cell of class `class_index` (index into `taxonomy.CLASSES`)."""
    found, strands = _SHAPES[CLASS_NAMES[class_index]](rng)
    return CellShape(class_index, found, strands)


_Parts = tuple[tuple[HeadShape, ...], tuple[Flagellum, ...]]
_Rng = np.random.Generator


def _neck(rng: _Rng, head: HeadShape) -> flagella.Strand:
    """A normal midpiece: in the middle of the base, within 12° of the axis, 0.45–0.65 µm wide."""
    x, y = head.base
    lean = float(np.clip(rng.normal(0.0, 0.08), -0.2, 0.2))
    return flagella.midpiece(rng, (x, y), np.pi + lean, width=rng.uniform(0.45, 0.65))


def _with_head(make: Callable[[_Rng], HeadShape]) -> Callable[[_Rng], _Parts]:
    def shape(rng: _Rng) -> _Parts:
        head = make(rng)
        neck = _neck(rng, head)
        return (head,), (Flagellum(neck, flagella.usual_tail(rng, neck)),)

    return shape


def _with_neck(make: Callable[[_Rng, tuple[float, float]], flagella.Strand]) -> Callable[[_Rng], _Parts]:
    def shape(rng: _Rng) -> _Parts:
        head = head_shapes.normal_head(rng)
        neck = make(rng, head.base)
        return (head,), (Flagellum(neck, flagella.usual_tail(rng, neck)),)

    return shape


def _with_tail(make: Callable[[_Rng, flagella.Strand], flagella.Strand]) -> Callable[[_Rng], _Parts]:
    def shape(rng: _Rng) -> _Parts:
        head = head_shapes.normal_head(rng)
        neck = _neck(rng, head)
        return (head,), (Flagellum(neck, make(rng, neck)),)

    return shape


def _asymmetric_neck(rng: _Rng) -> _Parts:
    """The midpiece joins at the flank of the base, at least three tenths of the width off the axis."""
    head = head_shapes.normal_head(rng)
    half_length, half_width = np.abs(head.outline).max(axis=0)
    side = rng.choice([-1.0, 1.0])
    aside = rng.uniform(0.66, 0.9)
    start = (-float(half_length) * float(np.sqrt(1.0 - aside**2)) - 0.02, side * aside * float(half_width) * 0.92)
    neck = flagella.midpiece(rng, start, np.pi - side * rng.uniform(0.0, 0.45), width=rng.uniform(0.45, 0.65))
    return (head,), (Flagellum(neck, flagella.usual_tail(rng, neck)),)


def _double_head(rng: _Rng) -> _Parts:
    pair = head_shapes.double_heads(rng)
    x, y = np.mean([h.base for h in pair], axis=0)
    neck = flagella.midpiece(
        rng, (float(x) + 0.25, float(y)), np.pi + rng.normal(0.0, 0.1), width=rng.uniform(0.55, 0.8)
    )
    return pair, (Flagellum(neck, flagella.usual_tail(rng, neck)),)


def _double_tail(rng: _Rng) -> _Parts:
    head = head_shapes.normal_head(rng)
    return (head,), flagella.two_flagella(rng, head.base)


_SHAPES: Final[dict[str, Callable[[_Rng], _Parts]]] = {
    "AmorfHead": _with_head(head_shapes.amorphous_head),
    "AsymmetricNeck": _asymmetric_neck,
    "CurlyTail": _with_tail(flagella.curly_tail),
    "DoubleHead": _double_head,
    "DoubleTail": _double_tail,
    "LongTail": _with_tail(flagella.long_tail),
    "NarrowAcrosome": _with_head(head_shapes.narrow_acrosome_head),
    "Normal": _with_head(head_shapes.normal_head),
    "PinHead": _with_head(head_shapes.pin_head),
    "PyriformHead": _with_head(head_shapes.pyriform_head),
    "RoundHead": _with_head(head_shapes.round_head),
    "ShortTail": _with_tail(flagella.short_tail),
    "TaperedHead": _with_head(head_shapes.tapered_head),
    "ThickNeck": _with_neck(lambda rng, base: flagella.thick_midpiece(rng, base, np.pi + rng.normal(0.0, 0.08))),
    "ThinNeck": _with_neck(lambda rng, base: flagella.thin_midpiece(rng, base, np.pi + rng.normal(0.0, 0.08))),
    "TwistedNeck": _with_neck(flagella.bent_midpiece),
    "TwistedTail": _with_tail(flagella.twisted_tail),
    "VacuolatedHead": _with_head(head_shapes.vacuolated_head),
}
