"""The outline of one head, at the full resolution of its field."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.splitting import Polygon
from services.imaging.detection.transmittance import Colour
from services.imaging.planes import Planes

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
_LEVELS: Final = np.arange(256) * 255.0
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


def trace(
    planes: Planes, um_per_px: float, piece: Polygon, others: list[Polygon], background: Colour
) -> Closeup | None:
    """Trace the head that `piece` marks roughly; `piece` and `others`, which it must not enter, in field pixels.

    None where nothing as thick as a head is left.
    """
    zoom = max(1, round(um_per_px / _FINE_UM))
    fine = um_per_px / zoom
    margin = round(_MARGIN_UM / um_per_px)
    height, width = planes.pixels.shape[:2]
    x, y, w, h = cv2.boundingRect(piece)
    x0, y0 = max(0, x - margin), max(0, y - margin)
    x1, y1 = min(width, x + w + margin + 1), min(height, y + h + margin + 1)
    here = slice(y0, y1), slice(x0, x1)
    red, green = (_lit(planes.channels[channel][here], zoom, background[channel]) for channel in (0, 1))

    beyond = disc(_BEYOND_UM / fine)
    reach = len(beyond) // 2 + 1

    own = _corners(piece, x0, y0, zoom)
    # All that follows happens within reach of the piece.
    x, y, w, h = cv2.boundingRect(own)
    x, y, right, bottom = max(0, x - reach), max(0, y - reach), x + w + reach, y + h + reach
    near = green[y:bottom, x : x + up_to_vector(right - x)]

    rough = _drawn(own, near.shape, x, y)
    allowed = np.asarray(cv2.dilate(rough, beyond), np.uint8)
    for other in others:
        allowed[_drawn(_corners(other, x0, y0, zoom), near.shape, x, y) > 0] = 0
    near = np.asarray(cv2.GaussianBlur(near, (0, 0), max(0.5, _SMOOTHING_UM / fine)), np.uint8)
    dark = (_is_dark(near, rough, fine) & allowed.view(np.bool_)).view(np.uint8)
    cv2.fillPoly(dark, cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], 1)
    # Nothing is allowed outside: without a margin, opening would take the border of the array for more head.
    opened = cv2.morphologyEx(
        dark, cv2.MORPH_OPEN, disc(_TAIL_UM / 2 / fine), borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    if not contours:
        return None
    contour = np.asarray(max(contours, key=cv2.contourArea), np.int32)
    mask = np.zeros(green.shape, np.uint8)
    cv2.fillPoly(mask, [contour], 1)
    compact = cv2.approxPolyDP(contour, _COMPACT_PX * zoom, closed=True).reshape(-1, 2)
    outline = np.rint((compact + 0.5) / zoom - 0.5 + (x0, y0)).astype(np.int32)
    grey = np.asarray(cv2.addWeighted(red, 0.5, green, 0.5, 0), np.uint8)
    return Closeup(grey, mask, fine, contour, outline)


def _corners(polygon: Polygon, x0: int, y0: int, zoom: int) -> NDArray[np.int32]:
    return np.asarray(np.rint((polygon + _HALF - (x0, y0)) * zoom - _HALF), np.int32)


def _drawn(polygon: NDArray[np.int32], shape: tuple[int, ...], x: int, y: int) -> NDArray[np.uint8]:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [polygon], 1, offset=(-x, -y))
    return canvas


def up_to_vector(width: int) -> int:
    """`width` rounded up to what OpenCV takes at once: what is left over, a pixel at a time, takes twice as long."""
    return -(-width // _VECTOR) * _VECTOR


def _lit(levels: NDArray[np.uint8], zoom: int, background: float) -> NDArray[np.uint8]:
    """Transmittance of one colour, enlarged `zoom` times."""
    if zoom > 1:
        levels = np.asarray(cv2.resize(levels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.asarray(cv2.LUT(levels, _transmittance(background)), np.uint8)


@cache
def _transmittance(background: float) -> NDArray[np.uint8]:
    """By level, how much light passes where empty glass has the level `background`, a whole number."""
    return np.asarray(np.minimum(_LEVELS / max(background, 1.0), 255), np.uint8)


def _is_dark(green: NDArray[np.uint8], rough: NDArray[np.uint8], fine: float) -> NDArray[np.bool_]:
    """What lies within the edge, by how dark the head is nearby: a pale acrosome ends at a brighter level."""
    inside = np.asarray(cv2.erode(rough, disc(_RIM_UM / fine)), np.uint8)
    if not cv2.countNonZero(inside):
        inside = rough
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
