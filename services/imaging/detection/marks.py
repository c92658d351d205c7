"""Letters, bars, dots and arrows that a program drew into the picture: even, and sharper than a lens can be."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.tracing import Closeup

_SAME: Final = 2  # levels
_EVEN: Final = 0.5  # of it has nearly one level; of real heads 0.44 at most, but more where a camera clips
_SHARP: Final = 0.75  # of the contrast falls within some 3 px; of real heads at most 0.55, and marks have 0.93
_FINE_UM: Final = 0.06  # in coarser pixels a lens is as sharp, and a head that the camera clips looks as if drawn
_GLASS: Final = 255
_LEAST_CONTRAST: Final = 25
_BLACK: Final = 2  # levels
_CLIPPED: Final = 0.02  # of the usual head is black: those that look drawn may be the darkest of them


def are_marks(heads: Sequence[Closeup]) -> list[bool]:
    """Which objects of a field were drawn into the picture and are nothing on the slide.

    Where most of them look so, it is the picture that has few colours.
    """
    drawn = [_is_drawn(head) for head in heads]
    if 2 * sum(drawn) > len(drawn):
        return [False] * len(drawn)
    if not any(drawn) or heads[0].um_per_px <= _FINE_UM:
        return drawn
    black = [np.mean(_inside(head) <= _BLACK) for head, looks in zip(heads, drawn, strict=True) if not looks]
    clipped = np.median(black) > _CLIPPED
    return [
        looks and not (clipped and np.median(_inside(head)) <= _BLACK) for head, looks in zip(heads, drawn, strict=True)
    ]


def _inside(head: Closeup) -> NDArray[np.uint8]:
    return head.grey[head.mask.view(np.bool_)]


def _is_drawn(head: Closeup) -> bool:
    inside = _inside(head)
    counts = np.bincount(inside, minlength=256)
    alike = np.convolve(counts, np.ones(2 * _SAME + 1, np.int64), "same")
    if alike.max() < _EVEN * inside.size:
        return False
    contrast = max(_LEAST_CONTRAST, _GLASS - int(alike.argmax()))
    window = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(cv2.morphologyEx(head.grey, cv2.MORPH_GRADIENT, window), window)
    at = head.contour.reshape(-1, 2)
    return bool(np.median(np.asarray(steps)[at[:, 1], at[:, 0]]) > _SHARP * contrast)
