"""Is `um_per_px` right? Sperm heads are the measure: their median length hardly differs between men, stains and labs.

Everything else is judged in µm, so a wrong scale first looks like something else: large heads, heads of no acceptable
size, or a field that is out of focus. The limits are set on 128 real fields (19 days of one laboratory, whose medians
are 3.5 to 4.2 µm) and on drawn smears (4.3 to 4.4 µm); docs/imaging.md has what they catch.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, FoundHeads, QualityFlag, RejectReason, UmPerPx

OTHER_THAN_FILE: Final = 0.1
"""The scale that a file states may differ from `um_per_px` by this share."""
SHORTEST_MEDIAN_UM: Final = 3.4
LONGEST_MEDIAN_UM: Final = 4.65
FEWEST_OBJECTS: Final = 8
"""With fewer objects in a slide, their median says nothing about the scale."""

_FEWEST_OF_FIELD: Final = 4
_ONE_HEAD: Final = 0.15  # of its logarithm is what a length varies by; the median of n by about this ÷ √n
_OTHER_MAGNIFICATION: Final = 0.15  # in the logarithm: the nearest pair of usual objectives is 63x and 100x, 0.46
_HEAD_UM2: Final = 7.6
_LOOKED_AT_PX: Final = 640
_LEAST_PX: Final = 12
_DARK: Final = 0.6  # of the glass
_SHARES: Final = (0.25, 0.5, 0.75)
_COARSEST_UM: Final = 0.25  # no head can be judged; to enlarge such a field costs seconds


@dataclass(frozen=True, slots=True)
class FieldScale:
    """What a field tells about its scale: its sides in pixels, and the lengths in µm of what may be heads."""

    width: int
    height: int
    lengths_um: tuple[float, ...] = ()


def lengths_um(found: FoundHeads, um_per_px: UmPerPx) -> tuple[float, ...]:
    """Lengths of the heads, and of the objects that are no heads by their size alone: at a wrong scale, they are."""
    heads = [head.measures.length_um for head in found.heads]
    others = [
        max(item.box.x1 - item.box.x0, item.box.y1 - item.box.y0) * um_per_px
        for item in found.rejected
        if item.reason == RejectReason.SIZE
    ]
    return (*(length for length in heads if length is not None), *others)


def differs_from_file(um_per_px: UmPerPx, stated: float | None) -> bool:
    """Whether the file states a scale, and another one."""
    return stated is not None and abs(math.log(um_per_px / stated)) > math.log(1 + OTHER_THAN_FILE)


def scale_flags(fields: Sequence[FieldScale]) -> list[tuple[QualityFlag, ...]]:
    """The flags of each field of one slide: is the slide's scale plausible, and is it that of all of its fields?"""
    lengths = [length for field in fields for length in field.lengths_um]
    doubtful = len(lengths) >= FEWEST_OBJECTS and _is_implausible(lengths)
    usual_size = Counter(_sides(field) for field in fields).most_common(1)[0][0] if fields else None
    usual_length = _usual_length(fields)
    flags = []
    for field in fields:
        of_slide = _sides(field) == usual_size and not _has_other_heads(field, usual_length)
        raised = {
            QualityFlag.SCALE_NOT_OF_SLIDE: not of_slide,
            QualityFlag.SCALE_DOUBTFUL: doubtful and bool(field.lengths_um),
        }
        flags.append(tuple(flag for flag, is_raised in raised.items() if is_raised))
    return flags


def has_heads_at_another_scale(pixels: RGB, um_per_px: UmPerPx) -> bool:
    """Whether a field without a usable head would be sharp and show heads of the usual size at another scale.

    It takes as long as up to four ordinary fields, and is for those that would be set aside.
    """
    for scale in _scales_of_heads(pixels):
        another = abs(math.log(scale / um_per_px)) > _OTHER_MAGNIFICATION
        if not another or scale > _COARSEST_UM or measure_quality(pixels, scale).unusable is not None:
            continue
        found = find_heads(pixels, scale)
        most_are_heads = len(found.heads) >= max(_FEWEST_OF_FIELD, len(found.rejected) - found.on_border)
        if most_are_heads and not _is_implausible(lengths_um(found, scale)):
            return True
    return False


def _scales_of_heads(pixels: RGB) -> list[UmPerPx]:
    """At which µm a pixel the dark objects of a field would have the area of a head; larger objects count for more."""
    shrink = max(1.0, max(pixels.shape[:2]) / _LOOKED_AT_PX)
    small = cv2.resize(pixels, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    level = np.minimum(small[..., 0], small[..., 1])
    dark = (level < _DARK * np.percentile(level, 75)).view(np.uint8)
    contours = cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    areas = np.sort([area for area in map(cv2.contourArea, contours) if area >= _LEAST_PX])
    if not areas.size:
        return []
    covered = np.cumsum(areas) / areas.sum()
    usual = {float(areas[np.searchsorted(covered, share)]) for share in _SHARES}
    return [UmPerPx(math.sqrt(_HEAD_UM2 / area) / shrink) for area in usual]


def _sides(field: FieldScale) -> tuple[int, int]:
    """Turned or not, it is the same camera."""
    return min(field.width, field.height), max(field.width, field.height)


def _is_implausible(lengths: Sequence[float]) -> bool:
    room = math.exp(_ONE_HEAD / math.sqrt(len(lengths)))
    return not SHORTEST_MEDIAN_UM / room <= float(np.median(lengths)) <= LONGEST_MEDIAN_UM * room


def _usual_length(fields: Sequence[FieldScale]) -> float | None:
    """The median length of that field which half of the slide's heads are shorter than: a length that occurs."""
    medians = sorted(
        (float(np.median(field.lengths_um)), len(field.lengths_um))
        for field in fields
        if len(field.lengths_um) >= _FEWEST_OF_FIELD
    )
    below, half = 0, sum(count for _, count in medians) / 2
    for median, count in medians:
        below += count
        if below >= half:
            return median
    return None


def _has_other_heads(field: FieldScale, usual: float | None) -> bool:
    if usual is None or len(field.lengths_um) < _FEWEST_OF_FIELD:
        return False
    least = _OTHER_MAGNIFICATION + 3 * _ONE_HEAD / math.sqrt(len(field.lengths_um))
    return abs(math.log(float(np.median(field.lengths_um)) / usual)) > least
