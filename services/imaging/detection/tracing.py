"""The outlines of heads, at the full resolution of their field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.splitting import Polygon
from services.imaging.detection.transmittance import Colour
from services.imaging.planes import Planes
from services.imaging.types import RGB, UmPerPx

_FINE_UM: Final = 0.07  # a coarser field is enlarged, as an outline in whole pixels of it would be too rough
_MARGIN_UM: Final = 1.4  # room for the start of the midpiece
_SMOOTHING_UM: Final = 0.03
_RIM_UM: Final = 0.3  # the blurred edge of a head: its darkness inside is measured further in
_INSIDE_UM: Final = 1.4
_EDGE: Final = 0.61  # of the way from the darkness inside to empty glass, where people draw the outline
_BEYOND_UM: Final = 0.25
_COMPACT_PX: Final = 0.7  # the outline is kept as a polygon no further than this from the traced one
_TAIL_UM: Final = 0.9  # whatever is thinner is tail
_VECTOR: Final = 16  # pixels
_HALF: Final = np.float32(0.5)
_GLASS: Final = 255
_AT_ONCE: Final = 64  # heads: a field of thousands is traced in as little memory
_NEXT_TO_NOTHING: Final = np.float32(1e-6)


@dataclass(frozen=True, slots=True)
class Closeup:
    """A head alone, `[h, w]` at `um_per_px`; `contour` `[n, 1, 2]` is that of `mask`, `outline` is in field pixels.

    `grey` is the mean of red and green transmittance: the acrosome takes up less of any of the usual stains than the
    nucleus does, and noise of one channel counts half.
    """

    grey: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    um_per_px: float
    contour: NDArray[np.int32]
    outline: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rough:
    """A head that `piece` marks roughly, which must not enter `others`, in field pixels, and the empty glass there."""

    piece: Polygon
    others: Sequence[Polygon]
    background: Colour


def trace(planes: Planes, um_per_px: UmPerPx, roughs: Sequence[Rough]) -> list[Closeup | None]:
    """Trace the heads that are marked; None where nothing as thick as a head is left."""
    traced: list[Closeup | None] = []
    for first in range(0, len(roughs), _AT_ONCE):
        traced += _traced(planes.pixels, um_per_px, roughs[first : first + _AT_ONCE])
    return traced


def _traced(pixels: RGB, um_per_px: UmPerPx, roughs: Sequence[Rough]) -> list[Closeup | None]:
    """All windows lie side by side, as do their parts near the pieces: one operation does for all heads."""
    zoom = max(1, round(um_per_px / _FINE_UM))
    fine = um_per_px / zoom
    windows = [_window(pixels, rough, round(_MARGIN_UM / um_per_px), zoom) for rough in roughs]
    wide = max(window.width for window in windows)
    red, green = (
        np.full((max(window.height for window in windows), wide * len(windows)), _GLASS, np.uint8) for _ in "rg"
    )
    slots = [(slice(0, window.height), slice(k * wide, k * wide + window.width)) for k, window in enumerate(windows)]
    for slot, window, rough in zip(slots, windows, roughs, strict=True):
        for channel, strip in enumerate((red, green)):
            cv2.LUT(window.levels[channel], _transmittance(rough.background[channel]), strip[slot])
    grey = np.asarray(cv2.addWeighted(red, 0.5, green, 0.5, 0), np.uint8)
    contours = _contours([green[slot] for slot in slots], windows, fine)
    mask = np.zeros_like(grey)
    heads: list[Closeup | None] = []
    for slot, window, contour in zip(slots, windows, contours, strict=True):
        if contour is None:
            heads.append(None)
            continue
        within = window.within(contour)
        cv2.fillPoly(mask[slot], [within], 1)
        heads.append(Closeup(grey[slot], mask[slot], fine, within, window.outline(contour)))
    return heads


def _contours(
    greens: Sequence[NDArray[np.uint8]], windows: Sequence["_Window"], fine: float
) -> list[NDArray[np.int32] | None]:
    """The contour `[n, 1, 2]` of the head in each window, whose transmittance of green is given.

    At the border of the field a head goes on, as far as it may.
    """
    beyond = disc(_BEYOND_UM / fine)
    reach = len(beyond) // 2 + 1
    boxes = [cv2.boundingRect(window.piece) for window in windows]
    wide = up_to_vector(max(w for _, _, w, _ in boxes) + 2 * reach + 1)
    near = np.full((max(h for _, _, _, h in boxes) + 2 * reach, wide * len(boxes)), _GLASS, np.uint8)
    rough, allowed = np.zeros((2, *near.shape), np.uint8)
    offsets = [np.array((k * wide + reach - x, reach - y), np.int32) for k, (x, y, _, _) in enumerate(boxes)]
    cv2.fillPoly(rough, [window.piece + offset for window, offset in zip(windows, offsets, strict=True)], 1)
    for k, (x, y, w, h) in enumerate(boxes):
        place = x - reach, y - reach, w + 2 * reach, h + 2 * reach
        here = slice(0, place[3]), slice(k * wide, k * wide + place[2])
        near[here] = _part(greens[k], *place)
        if min(place[:2]) < 0 or x + w + reach > windows[k].width or y + h + reach > windows[k].height:
            alone = np.zeros_like(greens[k])
            cv2.fillPoly(alone, [windows[k].piece], 1)
            rough[here] = _part(alone, *place)
    cv2.dilate(rough, beyond, allowed)
    for k, (x, y, _, _) in enumerate(boxes):
        cv2.fillPoly(allowed[:, k * wide : (k + 1) * wide], windows[k].others, 0, offset=(reach - x, reach - y))
    near = np.asarray(cv2.GaussianBlur(near, (0, 0), max(0.5, _SMOOTHING_UM / fine)), np.uint8)
    dark = (_is_dark(near, rough, fine, wide) & allowed.view(np.bool_)).view(np.uint8)
    cv2.fillPoly(dark, cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], 1)
    # Nothing is allowed outside: without a margin, opening would take the border of the array for more head.
    opened = cv2.morphologyEx(
        dark, cv2.MORPH_OPEN, disc(_TAIL_UM / 2 / fine), borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    largest: list[NDArray[np.int32] | None] = [None] * len(windows)
    for part in cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        k = int(part[0, 0, 0]) // wide
        other = largest[k]
        if other is None or cv2.contourArea(part) > cv2.contourArea(other):
            largest[k] = np.asarray(part, np.int32)
    return [
        None if contour is None else contour - offset
        for contour, window, offset in zip(largest, windows, offsets, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Window:
    """What surrounds a head from `corner` in the field on: `levels` of red and green, enlarged `zoom` times.

    `piece` and `others` are those of the head, in pixels of the window.
    """

    corner: tuple[int, int]
    zoom: int
    levels: tuple[NDArray[np.uint8], ...]
    piece: NDArray[np.int32]
    others: list[NDArray[np.int32]]

    @property
    def height(self) -> int:
        return len(self.levels[0])

    @property
    def width(self) -> int:
        return len(self.levels[0][0])

    def within(self, contour: NDArray[np.int32]) -> NDArray[np.int32]:
        """What of a head lies in the window."""
        x, y, w, h = cv2.boundingRect(contour)
        if x >= 0 and y >= 0 and x + w <= self.width and y + h <= self.height:
            return contour
        return np.clip(contour, 0, (self.width - 1, self.height - 1)).astype(np.int32)

    def outline(self, contour: NDArray[np.int32]) -> NDArray[np.int32]:
        """What of a head lies in the window, in field pixels `[n, 2]`, without points that hardly change it."""
        compact = np.asarray(cv2.approxPolyDP(contour, _COMPACT_PX * self.zoom, closed=True), np.int32)
        return np.rint((self.within(compact).reshape(-1, 2) + 0.5) / self.zoom - 0.5 + self.corner).astype(np.int32)


def _window(pixels: RGB, rough: Rough, margin: int, zoom: int) -> _Window:
    x, y, w, h = cv2.boundingRect(rough.piece)
    x0, y0 = max(0, x - margin), max(0, y - margin)
    around = pixels[y0 : y + h + margin + 1, x0 : x + w + margin + 1]
    if zoom > 1:
        around = np.asarray(cv2.resize(around, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8)
    # OpenCV takes twenty times as long to split a part of a picture.
    levels = tuple(np.asarray(cv2.extractChannel(around, channel), np.uint8) for channel in (0, 1))
    piece, *others = (
        np.asarray(np.rint((polygon + _HALF - (x0, y0)) * zoom - _HALF), np.int32)
        for polygon in (rough.piece, *rough.others)
    )
    return _Window((x0, y0), zoom, levels, piece, others)


def _part(window: NDArray[np.uint8], x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
    """A part of `window`; what lies beyond it, as at the border of a field, goes on as it ends."""
    height, width = window.shape
    inside = window[max(0, y) : y + h, max(0, x) : x + w]
    if inside.shape == (h, w):
        return inside
    top, left, bottom, right = max(0, -y), max(0, -x), max(0, y + h - height), max(0, x + w - width)
    return np.asarray(cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def up_to_vector(width: int) -> int:
    """`width` rounded up to what OpenCV takes at once: what is left over, a pixel at a time, takes twice as long."""
    return -(-width // _VECTOR) * _VECTOR


@cache
def _transmittance(background: float) -> NDArray[np.uint8]:
    """By level, how much light passes where empty glass has the level `background`, a whole number."""
    return np.asarray(np.minimum(np.arange(256) * float(_GLASS) / max(background, 1.0), _GLASS), np.uint8)


def _is_dark(green: NDArray[np.uint8], rough: NDArray[np.uint8], fine: float, wide: int) -> NDArray[np.bool_]:
    """What lies within the edge, by how dark the head is nearby: a pale acrosome ends at a brighter level.

    A head takes `wide` columns.
    """
    inside = np.asarray(cv2.erode(rough, disc(_RIM_UM / fine)), np.uint8)
    of_heads = inside.reshape(len(inside), -1, wide)
    small = ~of_heads.any(axis=(0, 2))
    of_heads[:, small] = rough.reshape(of_heads.shape)[:, small]
    window = (round(_INSIDE_UM / fine) | 1,) * 2
    darkness = ~green
    size = cv2.boxFilter(inside, cv2.CV_32F, window, normalize=False)
    total = cv2.boxFilter(inside * darkness, cv2.CV_32F, window, normalize=False)
    return np.asarray(darkness * np.maximum(size, _NEXT_TO_NOTHING) > (1 - _EDGE) * total)


@cache
def disc(radius: float) -> NDArray[np.uint8]:
    """A round structuring element of `radius` pixels, at least 1."""
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)
