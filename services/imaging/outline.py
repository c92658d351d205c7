"""The outline of one head, at the full resolution of its field."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.splitting import Polygon
from services.imaging.types import RGB

_FINE_UM: Final = 0.07  # a coarser field is enlarged, as an outline in whole pixels of it would be too rough
_RED_AND_GREEN: Final = np.array([[0.5, 0.5]], np.float32)
_MARGIN_UM: Final = 1.4  # room for the start of the midpiece
_SMOOTHING_UM: Final = 0.03
_RIM_UM: Final = 0.3  # the blurred edge of a head: its darkness inside is measured further in
_INSIDE_UM: Final = 1.4
_EDGE: Final = 0.61  # of the way from the darkness inside to empty glass, where people draw the outline
_BEYOND_UM: Final = 0.25
_COMPACT_PX: Final = 0.7  # the outline is kept as a polygon no further than this from the traced one
_TAIL_UM: Final = 0.9  # whatever is thinner is tail


@dataclass(frozen=True, slots=True)
class Closeup:
    """A head alone, `[h, w]` at `um_per_px`, and its `outline` in field pixels.

    `grey` is the mean of red and green transmittance: the acrosome takes up less of any of the usual stains than the
    nucleus does, and noise of one channel counts half.
    """

    grey: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    um_per_px: float
    outline: NDArray[np.int32]

    def tight(self) -> "Closeup":
        """The same head without what surrounds it."""
        x, y, w, h = cv2.boundingRect(self.mask)
        rows, columns = slice(max(0, y - 1), y + h + 1), slice(max(0, x - 1), x + w + 1)
        return Closeup(self.grey[rows, columns], self.mask[rows, columns], self.um_per_px, self.outline)

    def halved(self) -> "Closeup":
        """The same head at half the resolution: enough for levels and directions, in a quarter of the time."""
        size = max(1, self.mask.shape[1] // 2), max(1, self.mask.shape[0] // 2)
        grey = np.asarray(cv2.resize(self.grey, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(self.mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        return Closeup(grey, mask, 2 * self.um_per_px, self.outline)


def trace(
    pixels: RGB, um_per_px: float, piece: Polygon, others: list[Polygon], background: NDArray[np.float64]
) -> Closeup | None:
    """Trace the head that `piece` marks roughly; `piece` and `others`, which it must not enter, in field pixels.

    None where nothing as thick as a head is left.
    """
    zoom = max(1, round(um_per_px / _FINE_UM))
    fine = um_per_px / zoom
    margin = round(_MARGIN_UM / um_per_px)
    height, width = pixels.shape[:2]
    low, high = np.floor(piece.min(0)).astype(int), np.ceil(piece.max(0)).astype(int)
    x0, y0 = max(0, low[0] - margin), max(0, low[1] - margin)
    x1, y1 = min(width, high[0] + margin + 1), min(height, high[1] + margin + 1)
    crop = np.ascontiguousarray(pixels[y0:y1, x0:x1, :2])
    if zoom > 1:
        crop = np.asarray(cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8)
    lit = _lit(crop, background)

    beyond = disc(_BEYOND_UM / fine)
    reach = len(beyond) // 2 + 1
    corners = _corners(piece, x0, y0, zoom)
    # All that follows happens within reach of the piece.
    (left, top), (right, bottom) = corners.min(0) - reach, corners.max(0) + reach + 1
    left, top = max(0, int(left)), max(0, int(top))
    near = lit[top : int(bottom), left : int(right), 1]

    def drawn(outline: NDArray[np.int32]) -> NDArray[np.uint8]:
        canvas = np.zeros(near.shape, np.uint8)
        cv2.fillPoly(canvas, [outline - [left, top]], 1)
        return canvas

    rough = drawn(corners)
    allowed = cv2.dilate(rough, beyond)
    for other in others:
        allowed[drawn(_corners(other, x0, y0, zoom)) > 0] = 0
    x, y, w, h = cv2.boundingRect(allowed)
    here = slice(y, y + h), slice(x, x + w)
    green = np.asarray(cv2.GaussianBlur(near[here], (0, 0), max(0.5, _SMOOTHING_UM / fine)), np.uint8)
    dark = ((green < _edge_level(green, rough[here], fine)) & (allowed[here] > 0)).astype(np.uint8)
    fill_holes(dark, dark.size)
    # Nothing is allowed outside: without a margin, opening would take the border of the array for more head.
    opened = cv2.morphologyEx(
        dark, cv2.MORPH_OPEN, disc(_TAIL_UM / 2 / fine), borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left + x, top + y))
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)
    mask = np.zeros(lit.shape[:2], np.uint8)
    cv2.fillPoly(mask, [contour], 1)
    compact = cv2.approxPolyDP(contour, _COMPACT_PX * zoom, closed=True).reshape(-1, 2)
    outline = np.round((compact + 0.5) / zoom - 0.5 + [x0, y0]).astype(np.int32)
    grey = np.asarray(cv2.transform(lit, _RED_AND_GREEN), np.uint8)
    return Closeup(grey, mask, fine, outline)


def _corners(polygon: Polygon, x0: int, y0: int, zoom: int) -> NDArray[np.int32]:
    return np.round((polygon + 0.5 - [x0, y0]) * zoom - 0.5).astype(np.int32)


def _lit(crop: NDArray[np.uint8], background: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Transmittance of the channels that `crop` `[h, w, 2]` has: red and green."""
    levels = np.arange(256)[:, None, None] * 255 / np.maximum(background[:2], 1)
    return np.asarray(cv2.LUT(crop, np.minimum(levels, 255).astype(np.uint8)), np.uint8)


def _edge_level(green: NDArray[np.uint8], rough: NDArray[np.uint8], fine: float) -> NDArray[np.float32]:
    """Where the edge is, by how dark the head is nearby: a pale acrosome ends at a brighter level than the nucleus."""
    inside = cv2.erode(rough, disc(_RIM_UM / fine))
    if not inside.any():
        inside = rough
    window = (round(_INSIDE_UM / fine) | 1,) * 2
    weight = cv2.boxFilter(inside.astype(np.float32), -1, window)
    darkness = cv2.boxFilter(inside * (255 - green.astype(np.float32)), -1, window) / np.maximum(weight, 1e-6)
    return np.asarray(255 - (1 - _EDGE) * darkness, np.float32)


def fill_holes(mask: NDArray[np.uint8], largest: float) -> None:
    """Set what is enclosed in `mask` `[h, w]` (0 or 1), and has at most `largest` pixels, in place.

    To be done before thin parts are taken away: the rim around a vacuole is as thin as a tail.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is not None:
        parents = hierarchy.reshape(-1, 4)[:, 3]
        for contour, parent in zip(contours, parents, strict=True):
            if parent >= 0 and cv2.contourArea(contour) <= largest:
                cv2.fillPoly(mask, [contour], 1)


@cache
def disc(radius: float) -> NDArray[np.uint8]:
    """A round structuring element of `radius` pixels, at least 1."""
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)
