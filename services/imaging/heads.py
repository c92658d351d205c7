"""Find the sperm heads of a stained field."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.candidates import SPECK_UM2, STAINED, Candidate, find_candidates
from services.imaging.detection.double_heads import join_double_heads
from services.imaging.detection.marks import are_marks
from services.imaging.detection.splitting import Polygon
from services.imaging.detection.strands import strands
from services.imaging.detection.tracing import Closeup, Rough, trace
from services.imaging.detection.transmittance import FlatField, flatten
from services.imaging.measuring.morphometry import measure
from services.imaging.not_sperm import judged
from services.imaging.planes import Planes
from services.imaging.types import RGB, Box, FoundHeads, Head, RejectedObject, RejectReason, UmPerPx
from services.imaging.working_size import WORKING_UM

_SMALLEST_UM2: Final = 4.0  # without a tail in view
_LARGEST_PIN_UM2: Final = 5.0  # at the working scale, where outlines are wider
_CLEAR_TAIL: Final = 20  # levels of 255 darker than what lies beside it
_LARGEST_UM2: Final = 24.0
_USUAL_UM2: Final = (5.0, 11.0)
_LEAST_DEEP: Final = 0.25  # share of a head that is stained as only chromatin is
_LEAST_DEEP_OF_SAME_HUE: Final = 0.07
_SAME_HUE: Final = 0.08  # of the hue of the field's heads: twice what is between them
_OTHER_HUE: Final = 1.8
_ENOUGH_TO_COMPARE: Final = 4  # heads; with fewer in a field, the usual one is not known
_MOST: Final = 0.67


def find_heads(
    pixels: RGB, um_per_px: UmPerPx, covered: NDArray[np.uint8] | None = None, planes: Planes | None = None
) -> FoundHeads:
    """Find, outline and measure every whole head in `pixels` `[H, W, 3]`; `um_per_px` must be that of `pixels`.

    `planes` are those of `pixels`, where there are any. A head that is no sperm says so in `not_counted`. What reaches
    into `covered` `[H, W]`, if given, is cut by it as by the border of the field. Objects that are not a whole head
    come back in `rejected`, each with its reason. Specks below 2 µm² are not listed.
    """
    planes = planes or Planes(pixels)
    flat = flatten(planes, um_per_px, WORKING_UM, STAINED)
    candidates = join_double_heads(find_candidates(flat), flat)
    usual_hue = _usual_hue(candidates)
    scale = np.array(flat.shrink, np.float32)
    height, width = pixels.shape[:2]
    rejected: list[RejectedObject] = []
    looked_at: list[tuple[Candidate, Rough, bool]] = []
    for candidate in candidates:
        piece = _in_field(candidate.polygon, scale)
        has_tail = candidate.double or _is_pin_head(candidate, flat)
        reason = _why_no_head(candidate, usual_hue, has_tail=has_tail)
        if reason is None:
            others = [_in_field(sibling, scale) for sibling in candidate.siblings]
            background = flat.background_at(*candidate.polygon.mean(axis=0))
            looked_at.append((candidate, Rough(piece, others, background), has_tail))
        elif candidate.area_um2 >= SPECK_UM2:
            rejected.append(RejectedObject(_box(piece), reason))
    traced: list[_Traced] = []
    closeups = trace(planes, um_per_px, [rough for _, rough, _ in looked_at])
    for (candidate, rough, has_tail), head in zip(looked_at, closeups, strict=True):
        if head is None:
            reason = RejectReason.BORDER if candidate.on_border else RejectReason.SHAPE
            rejected.append(RejectedObject(_box(rough.piece), reason))
            continue
        box = _box(head.outline)
        cut = covered is not None and covered[head.outline[:, 1], head.outline[:, 0]].any()
        if cut or box.x0 <= 0 or box.y0 <= 0 or box.x1 >= width or box.y1 >= height:
            rejected.append(RejectedObject(box, RejectReason.BORDER))
        else:
            traced.append(_Traced(box, head, has_tail))
    traced, marks = _without_marks(traced)
    heads: list[_Measured] = []
    small: list[_Measured] = []
    for item, measures in zip(traced, measure([item.closeup for item in traced]), strict=True):
        found = _Measured(Head(item.box, item.closeup.outline, measures), item.has_tail)
        is_small = measures.area_um2 is not None and measures.area_um2 < _SMALLEST_UM2
        (small if is_small else heads).append(found)
    pins = [item for item in small if item.has_tail]
    if len(pins) > len(heads):  # at a wrong scale all heads are small
        pins = []
    rejected += [RejectedObject(item.head.box, RejectReason.SIZE) for item in small if item not in pins]
    kept, bodies = _without_dark_bodies([*heads, *pins])
    kept.sort(key=lambda item: (item.head.box.y0, item.head.box.x0))
    sorted_heads = judged([item.head for item in kept], [item.has_tail for item in kept], flat, covered)
    return FoundHeads(tuple(sorted_heads), (*rejected, *marks, *bodies))


@dataclass(frozen=True, slots=True)
class _Traced:
    box: Box
    closeup: Closeup
    has_tail: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    head: Head
    has_tail: bool


def _without_marks(traced: list[_Traced]) -> tuple[list[_Traced], list[RejectedObject]]:
    """Leave out what was drawn into the picture."""
    drawn = are_marks([item.closeup for item in traced])
    kept = [item for item, is_drawn in zip(traced, drawn, strict=True) if not is_drawn]
    marks = [
        RejectedObject(item.box, RejectReason.MARK) for item, is_drawn in zip(traced, drawn, strict=True) if is_drawn
    ]
    return kept, marks


def _without_dark_bodies(found: list[_Measured]) -> tuple[list[_Measured], list[RejectedObject]]:
    """Tell heads from evenly dark bodies of unusual size that have neither acrosome nor midpiece.

    Only where most heads of the field show an acrosome: some stains, and blur, hide it on all of them.
    """
    heads = [item.head for item in found]
    shown = sum(head.measures.acrosome_share is not None for head in heads)
    if shown < max(_ENOUGH_TO_COMPARE, _MOST * len(heads)):
        return found, []
    bodies = [item.head for item in found if _is_dark_body(item)]
    kept = [item for item in found if not _is_dark_body(item)]
    return kept, [RejectedObject(head.box, RejectReason.TEXTURE) for head in bodies]


def _is_dark_body(found: _Measured) -> bool:
    m = found.head.measures
    if found.has_tail:
        return False
    if m.area_um2 is None or _USUAL_UM2[0] <= m.area_um2 <= _USUAL_UM2[1]:
        return False
    return m.acrosome_share is None and m.midpiece_width_um is None


def _is_pin_head(candidate: Candidate, flat: FlatField) -> bool:
    """Whether it is small, looks like a head, and has one tail: what has two lies on the tail of another cell."""
    if candidate.area_um2 > _LARGEST_PIN_UM2 or not candidate.may_be_pin_head:
        return False
    found = strands(flat, [candidate.polygon], _CLEAR_TAIL)
    return len(found) == 1 and found[0].ends == 1


def _why_no_head(candidate: Candidate, usual_hue: float | None, *, has_tail: bool) -> RejectReason | None:
    if candidate.area_um2 > _LARGEST_UM2 * (2 if candidate.double else 1):
        return RejectReason.SIZE
    if candidate.deep < _least_deep(candidate, usual_hue):
        return RejectReason.STAIN
    if usual_hue is not None and candidate.hue > _OTHER_HUE * usual_hue:
        return RejectReason.STAIN
    if has_tail or candidate.on_border:  # which may leave little of a head
        return None
    # Blur takes some of a whole one at the working scale.
    return RejectReason.SIZE if candidate.area_um2 < 0.8 * _SMALLEST_UM2 else None


def _least_deep(candidate: Candidate, usual_hue: float | None) -> float:
    """Pale stains and large vacuoles leave little that is deep; but then its hue is that of the field's heads."""
    as_heads = usual_hue is not None and abs(candidate.hue / usual_hue - 1) <= _SAME_HUE
    return _LEAST_DEEP_OF_SAME_HUE if as_heads else _LEAST_DEEP


def _usual_hue(candidates: list[Candidate]) -> float | None:
    """The hue of the field's heads, where there are enough: stains differ, but the heads of a field do not."""
    hues = [
        c.hue
        for c in candidates
        if c.deep >= _LEAST_DEEP and not c.on_border and _SMALLEST_UM2 < c.area_um2 < _LARGEST_UM2
    ]
    return float(np.median(hues)) if len(hues) >= _ENOUGH_TO_COMPARE else None


def _in_field(polygon: Polygon, scale: NDArray[np.float32]) -> Polygon:
    return (polygon + 0.5) * scale - 0.5


def _box(outline: NDArray[np.int32] | Polygon) -> Box:
    x, y, w, h = cv2.boundingRect(outline)
    return Box(x, y, x + w, y + h)
