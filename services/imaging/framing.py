"""The specimen alone: whatever covers the picture is painted as empty glass, and everything after sees no frame.

A frame, the dark round an eyepiece, a screen's window, the gaps of a mosaic or a legend's plate are larger than any
cell, and dark or even as no specimen is. To paint them is enough: no frame encloses the cells any more, the background
is glass up to the edge, and the figures of quality are those of the specimen. Glass painted as glass does no harm.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import percentile_of
from services.imaging.types import RGB, UmPerPx

_LOOKED_AT_UM: Final = 0.36  # every so manyth pixel, as it is: an average would be even everywhere
_EVEN: Final = 2  # levels between neighbours: a printed surface after JPEG; glass has the camera's noise
_DARK: Final = 0.12  # of the glass; a vignette leaves a fifth of the light
_OTHER: Final = 0.07  # of the glass; what is nearer is glass
_THICK_UM: Final = 4.0  # no head is so thick, whichever way
_FALL_UM: Final = 1.0  # over which an edge out of focus falls off
_FALLING: Final = 0.8  # of the glass
_ALONG_UM: Final = 12.0  # of an edge, to tell its blur from a head beside it
_CUT_UM: Final = 0.2  # a head so near to a cover is cut by it
_GLASS_UM: Final = 2.0
_REACH: Final = 5  # the brightest of 5 × 5 squares of 2 µm, with no head in all of them
_LEAST_SHARE: Final = 0.15  # of the field: with less beside the even parts, it is the glass that is even

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A field `[H, W, 3]` without what covers it; `covered` `[H, W]` is 1 where that was and next to it, else None."""

    pixels: RGB
    covered: Mask | None = None

    @property
    def framed(self) -> bool:
        """Whether something covered a part of the field."""
        return self.covered is not None


def specimen_of(pixels: RGB, um_per_px: UmPerPx) -> Specimen:
    """The field `pixels` `[H, W, 3]` of `um_per_px` µm a pixel without what covers it; itself, where nothing does."""
    rough = _covered(pixels, um_per_px)
    if rough is None:
        return Specimen(pixels)
    inside = _inside_margins(pixels)
    margins = np.ones(pixels.shape[:2], np.uint8)
    margins[inside] = 0
    if margins.all():
        return Specimen(pixels)  # it is even all over
    within = np.zeros_like(margins)
    found = _covered(pixels[inside], um_per_px) if margins.any() else rough
    if found is not None:
        within[inside] = found
    covered = margins | within
    if covered.all():
        return Specimen(pixels)
    painted = pixels.copy()
    cv2.copyTo(_glass(pixels, covered, um_per_px), covered, painted)
    cut = cv2.max(cv2.dilate(margins, _square(3)), cv2.dilate(within, _square(2 * _CUT_UM / um_per_px)))
    return Specimen(painted, np.asarray(cut, np.uint8))


def _inside_margins(pixels: RGB) -> tuple[slice, slice]:
    """Rows and columns within straight, even margins, to the pixel: a head next to them is whole."""
    rows, columns = slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    for _ in range(2):  # a margin of another level may lie within
        rows = _without_even_ends(pixels[rows, columns], rows.start)
        columns = _without_even_ends(pixels[rows, columns].transpose(1, 0, 2), columns.start)
    return rows, columns


def _without_even_ends(lines: NDArray[np.uint8], start: int) -> slice:
    """Which of `lines` `[n, length, 3]`: from the ends on, as even of a field with a margin most is none."""
    first, end = 0, len(lines)
    while first < end and _is_even(lines[first]):
        first += 1
    while first < end and _is_even(lines[end - 1]):
        end -= 1
    return slice(start + first, start + end)


def _is_even(line: NDArray[np.uint8]) -> bool:
    return line.size == 0 or bool(np.ptp(line, axis=0).max() <= 2 * _EVEN)


def _covered(pixels: RGB, um_per_px: UmPerPx) -> Mask | None:
    """1 where something covers the field `pixels`, to about half a µm; None where nothing does."""
    step = max(1, round(_LOOKED_AT_UM / um_per_px))
    samples = np.ascontiguousarray(pixels[step // 2 :: step, step // 2 :: step])
    if min(samples.shape[:2]) * step * um_per_px < 2 * _THICK_UM:
        return None
    cover = _cover(samples, step * um_per_px)
    if not cover.any():
        return None
    height, width = pixels.shape[:2]
    squares = np.repeat(np.repeat(cover, step, axis=0), step, axis=1)
    rest = max(0, height - len(squares)), max(0, width - squares.shape[1])
    whole = cv2.copyMakeBorder(squares, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE)[:height, :width]
    return np.asarray(cv2.dilate(np.ascontiguousarray(whole), _square(step)), np.uint8)


def _square(side: float) -> Mask:
    """Of at least `side` pixels, and odd."""
    return np.ones((round(side) | 1, round(side) | 1), np.uint8)


def _cover(samples: RGB, um: float) -> Mask:
    """1 where the samples `[h, w, 3]` at `um` µm show something that is not the specimen."""
    level = np.asarray(cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY), np.uint8)
    window = np.ones((3, 3), np.uint8)
    ranges = [
        cv2.subtract(cv2.dilate(levels, window), cv2.erode(levels, window))
        for levels in (cv2.extractChannel(samples, channel) for channel in range(3))
    ]
    even = _thick((np.asarray(cv2.max(cv2.max(*ranges[:2]), ranges[2])) <= _EVEN).view(np.uint8), um)
    dark_too = _thick((level < _DARK * percentile_of(level, 95)).view(np.uint8), um)
    if not (even.any() or dark_too.any()):
        return even
    beside = (even | dark_too) == 0
    if np.count_nonzero(beside) < _LEAST_SHARE * level.size:
        beside = dark_too == 0
    if not beside.any():
        return np.zeros_like(level)
    glass = percentile_of(level, 75, beside)
    away = np.abs(level.astype(np.float32) - glass) > _OTHER * glass
    cover = _thick(dark_too | (even & away.view(np.uint8)), um)
    if not cover.any():
        return cover
    usual = float(np.median(level[cover > 0]))
    fits = (level < _FALLING * glass) | (np.abs(level - usual) <= 2 * _EVEN)
    for _ in range(math.ceil(_FALL_UM / um)):
        beside_cover = np.asarray(cv2.dilate(cover, window), np.uint8) & (cover == 0).view(np.uint8)
        cover |= _mostly(beside_cover & fits.view(np.uint8), beside_cover, um)
    return cover


def _mostly(falling: Mask, edge: Mask, um: float) -> Mask:
    """What of `falling` lies where most of the `edge` around does: a head at the edge of a cover is not its blur."""
    side = (math.ceil(_ALONG_UM / um) | 1,) * 2
    much, all_of_it = (cv2.boxFilter(part, cv2.CV_32F, side, normalize=False) for part in (falling, edge))
    return falling & (2 * much > all_of_it).view(np.uint8)


def _thick(mask: Mask, um: float) -> Mask:
    """What of `mask` is thicker than any head; it goes on outside of the picture."""
    side = math.ceil(_THICK_UM / um)
    wide, square = (
        cv2.copyMakeBorder(mask, side, side, side, side, cv2.BORDER_REPLICATE),
        np.ones((side, side), np.uint8),
    )
    if not cv2.countNonZero(cv2.erode(wide, square)):
        return np.zeros_like(mask)
    opened = cv2.morphologyEx(wide, cv2.MORPH_OPEN, square)
    return np.ascontiguousarray(opened[side:-side, side:-side]).astype(np.uint8, copy=False)


def _glass(pixels: RGB, covered: Mask, um_per_px: UmPerPx) -> RGB:
    """The field's empty glass, as it is next to what is covered, and on below it."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * um_per_px / _GLASS_UM)), max(1, round(height * um_per_px / _GLASS_UM))
    grid = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    hidden = (np.asarray(cv2.resize(covered * np.uint8(255), size, interpolation=cv2.INTER_AREA)) > 0).view(np.uint8)
    if hidden.all():
        hidden = (np.asarray(cv2.resize(covered, size, interpolation=cv2.INTER_NEAREST)) > 0).view(np.uint8)
    grid[hidden > 0] = 0
    glass = cv2.morphologyEx(grid, cv2.MORPH_CLOSE, np.ones((_REACH, _REACH), np.uint8))
    glass = cv2.inpaint(glass, hidden, 3, cv2.INPAINT_TELEA)
    return np.asarray(cv2.resize(glass, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
