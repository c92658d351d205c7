"""Find the sperm heads of a stained field."""

import cv2
import numpy as np

from services.imaging.morphometry import shape_measures
from services.imaging.types import RGB, Box, FoundHeads, Head, RejectedObject

_SMALLEST_UM2, _LARGEST_UM2 = 3.0, 20.0


def find_heads(pixels: RGB, um_per_px: float) -> FoundHeads:
    """Find every whole sperm head in `pixels` `[H, W, 3]`; `um_per_px` must be that of `pixels`.

    Objects that are no whole head come back in `rejected`, each with its reason.
    """
    height, width = pixels.shape[:2]
    green = cv2.GaussianBlur(pixels[:, :, 1], (0, 0), 0.13 / um_per_px)
    _, mask = cv2.threshold(green, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    size = max(3, round(1.0 / um_per_px) | 1)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    heads: list[Head] = []
    rejected: list[RejectedObject] = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        box = Box(x, y, x + w, y + h)
        area = cv2.contourArea(contour) * um_per_px**2
        if x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1:
            rejected.append(RejectedObject(box, "border"))
        elif not _SMALLEST_UM2 <= area <= _LARGEST_UM2:
            rejected.append(RejectedObject(box, "size"))
        else:
            outline = np.asarray(contour[:, 0, :], dtype=np.int32)
            heads.append(Head(box, outline, shape_measures(outline, um_per_px)))
    heads.sort(key=lambda head: (head.box.y0, head.box.x0))
    return FoundHeads(tuple(heads), tuple(rejected))
