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
    """What a field tells about its scale: its sides in pixels, the lengths in µm of what may be heads, and its file.

    `misfits_um` are the lengths, at the slide's `um_per_px`, of objects that are sharp, usual heads at another one.
    """

    width: int
    height: int
    lengths_um: tuple[float, ...] = ()
    misfits_um: tuple[float, ...] = ()
    stated_um_per_px: float | None = None

    @property
    def fits(self) -> bool:
        """Whether its objects have the length of heads."""
        return len(self.lengths_um) >= _FEWEST_OF_FIELD and not self.misfits_um and not _is_implausible(self.lengths_um)


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


def of_another_magnification(fields: Sequence[FieldScale], um_per_px: UmPerPx) -> dict[int, str]:
    """Which fields of a slide are certainly not at its scale, by their place among `fields`, and what tells it.

    The slide's scale is `um_per_px`, where the heads or the file of another field confirm it. Where none does, nothing
    tells which fields are right: then it is doubted, and none of them is taken out.
    """
    fitting = [length for field in fields if field.fits for length in field.lengths_um]
    confirmed = any(
        field.stated_um_per_px is not None and not differs_from_file(um_per_px, field.stated_um_per_px)
        for field in fields
    )
    told = {}
    for place, field in enumerate(fields):
        if fitting and field.misfits_um and _differ(field.misfits_um, fitting):
            told[place] = (
                f"at {um_per_px:g} µm a pixel, its heads are {np.median(field.misfits_um):.1f} µm long, and those of"
                f" the slide's other fields {np.median(fitting):.1f} µm"
            )
        elif confirmed and not field.fits and differs_from_file(um_per_px, field.stated_um_per_px):
            told[place] = (
                f"its file states {field.stated_um_per_px:g} µm a pixel, and those of the slide's other fields"
                f" {um_per_px:g} µm, as the manifest does"
            )
    return told


def _differ(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two groups of heads differ in length by more than men, stains and chance make them."""
    least = _OTHER_MAGNIFICATION + 3 * _ONE_HEAD * math.sqrt(1 / len(some) + 1 / len(others))
    return abs(math.log(float(np.median(some)) / float(np.median(others)))) > least


def misfits_um(pixels: RGB, um_per_px: UmPerPx, found: FoundHeads) -> tuple[float, ...]:
    """The `misfits_um` of a field in which `found` was found; nothing where the heads found may be its heads."""
    lengths = lengths_um(found, um_per_px)
    most_are_heads = 2 * len(found.heads) >= len(lengths)
    if len(lengths) < _FEWEST_OF_FIELD or (most_are_heads and not _is_implausible(lengths)):
        return ()
    return heads_at_another_scale(pixels, um_per_px)


def heads_at_another_scale(pixels: RGB, um_per_px: UmPerPx) -> tuple[float, ...]:
    """Lengths in µm, at `um_per_px`, of the heads of a field that is sharp and shows usual heads at another scale.

    It takes as long as up to four ordinary fields, and is for those that have no usual head.
    """
    for scale in _scales_of_heads(pixels):
        another = abs(math.log(scale / um_per_px)) > _OTHER_MAGNIFICATION
        if not another or scale > _COARSEST_UM or measure_quality(pixels, scale).unusable is not None:
            continue
        found = find_heads(pixels, scale)
        lengths = lengths_um(found, scale)
        most_are_heads = len(found.heads) >= max(_FEWEST_OF_FIELD, len(found.rejected) - found.on_border)
        if most_are_heads and not _is_implausible(lengths):
            return tuple(length * um_per_px / scale for length in lengths)
    return ()


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
