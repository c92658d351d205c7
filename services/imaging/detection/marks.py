"""Letters, bars, dots and arrows that a program drew into the picture: even, and sharper than a lens can be."""

from typing import Final

import cv2
import numpy as np

from services.imaging.detection.tracing import Closeup

_SAME: Final = 2  # levels
_EVEN: Final = 0.5  # of it has nearly one level; of real heads 0.44 at most, but more where a camera clips
_SHARP: Final = 0.75  # of the contrast falls within some 3 px; of real heads at most 0.55, and marks have 0.93
_TOLD_UM: Final = 0.06  # in coarser pixels a lens is as sharp
_GLASS: Final = 255
_LEAST_CONTRAST: Final = 25


def is_mark(head: Closeup) -> bool:
    """Whether the object was drawn into the picture and is nothing on the slide."""
    if head.um_per_px > _TOLD_UM:
        return False
    inside = head.grey[head.mask.view(np.bool_)]
    counts = np.bincount(inside, minlength=256)
    alike = np.convolve(counts, np.ones(2 * _SAME + 1, np.int64), "same")
    if alike.max() < _EVEN * inside.size:
        return False
    contrast = max(_LEAST_CONTRAST, _GLASS - int(alike.argmax()))
    window = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(cv2.morphologyEx(head.grey, cv2.MORPH_GRADIENT, window), window)
    at = head.contour.reshape(-1, 2)
    return bool(np.median(np.asarray(steps)[at[:, 1], at[:, 0]]) > _SHARP * contrast)
