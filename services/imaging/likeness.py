"""Is this the picture of another file? A signature of a field that no encoding, size or brightness changes.

Measured on 128 real fields and 60 drawn ones: with the original, JPEG of quality 50 correlates by 0.99 and more, half
its size, other brightness and grey levels by 0.98, a margin of 1 % cut off by 0.93; another field by 0.46 at most
(17,578 pairs), and one that overlaps it by a half no more. A hash of the signs of differences tells them apart far less
well (0.18 of its bits against 0.24): wherever a field is empty it depends on the noise.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import Planes
from services.imaging.types import RGB

SAME: Final = 0.8
"""Signatures that correlate by more are of one picture: between what was measured, far from both."""

SIDE: Final = 16
_BACKGROUND_CELLS: Final = 4.0  # of the signature: light that falls off slowly is the microscope's, not the field's
_LEAST_CONTRAST: Final = 0.25  # grey levels: below it there is nothing but noise

Signature = NDArray[np.int8]


def signature_of(pixels: RGB, planes: Planes | None = None) -> Signature | None:
    """The signature `[SIDE²]` of a field `[H, W, 3]`; `None` where it shows nothing that could be told again."""
    quarter = (planes or Planes(pixels)).shrunk(4).pixels  # on the way to a few squares: four times faster than at once
    levels = cv2.resize(quarter, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)
    levels -= cv2.GaussianBlur(levels, (0, 0), _BACKGROUND_CELLS)
    if float(levels.std()) < _LEAST_CONTRAST:
        return None
    signature: Signature = np.rint(127 * levels / np.abs(levels).max()).astype(np.int8).ravel()
    return signature


def likeness(one: Signature, others: NDArray[np.int8]) -> NDArray[np.float32]:
    """How `one` correlates with each of `others` `[N, SIDE²]`, -1 to 1."""
    a, b = one.astype(np.float32), others.astype(np.float32)
    return np.asarray(b @ a / (np.linalg.norm(b, axis=1) * np.linalg.norm(a)), np.float32)
