"""Find the sperm heads of a stained field."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.morphometry import measure
from services.imaging.outline import trace
from services.imaging.splitting import Polygon, split_at_waists
from services.imaging.transmittance import FlatField, flatten
from services.imaging.types import RGB, Box, FoundHeads, Head, RejectedObject

_WORKING_UM: Final = 0.09
_STAINED: Final = 0.77 * 255  # green transmittance of anything stained; tails and empty glass are brighter
_TAIL_UM: Final = 1.0
_CORE: Final = 0.4 * 255
_SMALLEST_UM2, _LARGEST_UM2 = 4.2, 24.0
_SMALLEST_PIECE_UM2: Final = 5.0  # what a cut leaves is more often cytoplasm or a thick neck
_CLUMP_UM2: Final = 60.0
_LEAST_CORE: Final = 0.3
_NOTCH_UM: Final = 0.25
_WAIST: Final = 0.75
_FRAGMENT_UM2: Final = 1.0


def find_heads(pixels: RGB, um_per_px: float) -> FoundHeads:
    """Find every whole sperm head in `pixels` `[H, W, 3]`; `um_per_px` must be that of `pixels`.

    Objects that are no whole head come back in `rejected`, each with its reason.
    """
    flat = flatten(pixels, um_per_px, _WORKING_UM)
    heads: list[Head] = []
    rejected: list[RejectedObject] = []
    scale = np.array(flat.shrink, np.float32)
    for outline in _stained_objects(flat):
        pieces = _pieces(outline)
        in_field = [(p + 0.5) * scale - 0.5 for p in pieces]
        for k, piece in enumerate(pieces):
            reason = _why_no_head(piece, flat)
            if reason == "fragment":
                continue
            closeup = None
            if reason is None:
                closeup = trace(
                    pixels,
                    um_per_px,
                    in_field[k],
                    in_field[:k] + in_field[k + 1 :],
                    flat.background_at(*piece.mean(axis=0)),
                )
            if closeup is None:
                rejected.append(RejectedObject(_box(in_field[k]), reason or "shape"))
                continue
            measures = measure(closeup)
            if (measures.area_um2 or 0) < (_SMALLEST_UM2 if len(pieces) == 1 else _SMALLEST_PIECE_UM2):
                rejected.append(RejectedObject(_box(closeup.outline), "size"))
            else:
                heads.append(Head(_box(closeup.outline), closeup.outline, measures))
    heads.sort(key=lambda head: (head.box.y0, head.box.x0))
    return FoundHeads(tuple(heads), tuple(rejected))


def _stained_objects(flat: FlatField) -> list[Polygon]:
    green = cv2.GaussianBlur(flat.transmittance[:, :, 1], (0, 0), 1)
    _, mask = cv2.threshold(green, _STAINED, 1, cv2.THRESH_BINARY_INV)
    size = round(_TAIL_UM / _WORKING_UM) | 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [c.reshape(-1, 2).astype(np.float32) for c in contours]


def _pieces(outline: Polygon) -> list[Polygon]:
    if cv2.contourArea(outline) * _WORKING_UM**2 > _CLUMP_UM2:
        return [outline]
    return split_at_waists(outline, _NOTCH_UM / _WORKING_UM, _WAIST, _FRAGMENT_UM2 / _WORKING_UM**2)


def _why_no_head(piece: Polygon, flat: FlatField) -> str | None:
    area = cv2.contourArea(piece) * _WORKING_UM**2
    height, width = flat.transmittance.shape[:2]
    x0, y0 = piece.min(axis=0)
    x1, y1 = piece.max(axis=0)
    x, y, w, h = cv2.boundingRect(piece)
    green = flat.transmittance[y : y + h, x : x + w, 1]
    inside = np.zeros(green.shape, np.uint8)
    cv2.fillPoly(inside, [np.round(piece - [x, y]).astype(np.int32)], 1)
    core = float(np.mean(green[inside > 0] < _CORE)) if inside.any() else 0.0
    if x0 < 1 or y0 < 1 or x1 >= width - 1 or y1 >= height - 1:
        return "border" if core >= _LEAST_CORE else "stain"
    if area < 2:
        return "fragment"
    if core < _LEAST_CORE:
        return "stain"
    if not 0.8 * _SMALLEST_UM2 <= area <= _LARGEST_UM2:
        return "size"
    return None


def _box(outline: NDArray[np.int32] | Polygon) -> Box:
    low, high = np.floor(outline.min(axis=0)), np.ceil(outline.max(axis=0))
    return Box(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)
