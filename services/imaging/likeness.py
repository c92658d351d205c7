"""Do two files hold the same picture? A signature of a field that no encoding, size, brightness or turn changes.

Measured on 128 real fields: with the original, JPEG of quality 50 correlates by 0.99 and more, other brightness and
grey levels by 0.99, a margin of 1 % cut off by 0.95; another field by 0.48 at most (7,381 pairs, turned and mirrored as
well), and one that overlaps it by a half no more. Of a quarter of a field, with some three heads, JPEG of quality 50 by
0.89; of other fields by 0.73 at most (46,670 pairs). A hash of the signs of differences tells them apart far less well
(0.18 of its bits against 0.24): wherever a field is empty it depends on the noise.

A field with one or two heads has no signature: of 34,651 pairs of such quarters 19 have them in the same places by
chance, and correlate by more than 0.8. Then only its bytes tell it again. A batch has millions of pairs: there the
heads of those that are alike are compared too (`heads_agree`).
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import Planes
from services.imaging.types import RGB

SAME: Final = 0.9
"""Signatures that correlate by more are of one picture."""

SIDE: Final = 16
_BACKGROUND_CELLS: Final = 4.0  # of the signature: light that falls off slowly is the microscope's, not the field's
_LEAST_CONTRAST: Final = 0.25  # grey levels: below it there is nothing but noise
_AT_ONCE: Final = 128  # signatures, so that memory stays flat for any number of them
_LEAST_MARKS: Final = 5.0  # (Σ s²)² ÷ Σ s⁴: over how many cells its contrast is spread; real fields have 4.0 to 27
_NEAR: Final = 0.015  # of the field's side: a margin of 1 % that was cut off moves a head by so much at most
_MOST: Final = 0.7

Signature = NDArray[np.int8]


def signature_of(pixels: RGB, planes: Planes | None = None) -> Signature | None:
    """The signature `[SIDE²]` of a field `[H, W, 3]`; `None` where it shows too little to be told again."""
    quarter = (planes or Planes(pixels)).shrunk(4).pixels  # on the way to a few squares: four times faster than at once
    levels = cv2.resize(quarter, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)
    levels -= cv2.GaussianBlur(levels, (0, 0), _BACKGROUND_CELLS)
    power = levels**2
    if float(levels.std()) < _LEAST_CONTRAST or power.sum() ** 2 < _LEAST_MARKS * (power**2).sum():
        return None
    signature: Signature = np.rint(127 * levels / np.abs(levels).max()).astype(np.int8).ravel()
    return signature


def likeness(some: NDArray[np.int8], others: NDArray[np.int8]) -> NDArray[np.float32]:
    """How each of `some` `[M, SIDE²]` correlates with each of `others` `[N, SIDE²]`: `[M, N]`, -1 to 1.

    Turned or mirrored as fits them best.
    """
    squares, b = _of_length_1(some).reshape(-1, SIDE, SIDE), _of_length_1(others).T
    best = np.full((len(some), len(others)), -1, np.float32)
    for sides in (squares, squares[:, :, ::-1]):
        for turns in range(4):
            a = np.rot90(sides, turns, axes=(1, 2)).reshape(len(some), -1)
            np.maximum(best, a @ b, out=best)
    return best


def _of_length_1(signatures: NDArray[np.int8]) -> NDArray[np.float32]:
    values = signatures.astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def first_of_same(signatures: NDArray[np.int8], slides: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `signatures` `[N, SIDE²]` the place `[N]` of the first one of its picture; of most it is their own.

    `slides` `[N]` are the slides that they are of: within a slide no two are of one picture.
    """
    places = np.arange(len(signatures))
    alike_to = places.copy()
    for start in range(0, len(signatures), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        alike = (likeness(signatures[rows], signatures[start:]) > SAME) & (slides[rows, np.newaxis] != slides[start:])
        alike = np.triu(alike, 1)
        found = alike.any(axis=0) & (alike_to[start:] == places[start:])
        alike_to[start:][found] = start + alike.argmax(axis=0)[found]
    for place, other in enumerate(alike_to):  # a picture's first is known before those that are like it
        alike_to[place] = alike_to[other]
    return alike_to


def heads_agree(some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> bool:
    """Whether most heads of two pictures lie in the same places, turned or mirrored as fits; 0 to 1 across and down."""
    if not some or not others:
        return False
    one, other = np.array(some) - 0.5, np.array(others) - 0.5
    for flip in (1, -1):
        for turns in range(4):
            a, b = (np.cos(turns * np.pi / 2), np.sin(turns * np.pi / 2))
            turned = one * (flip, 1) @ np.array([[a, -b], [b, a]])
            near = (np.abs(turned[:, np.newaxis] - other) <= _NEAR).all(axis=2)
            if min(near.any(axis=1).sum(), near.any(axis=0).sum()) >= _MOST * max(near.shape):
                return True
    return False
