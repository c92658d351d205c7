"""Strands that leave an object: midpieces and tails, and what looks like one."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.splitting import Polygon
from services.imaging.detection.transmittance import GRAIN_PX, FlatField

_NEAR_UM: Final = 0.45  # nearer to an outline is its own blurred edge
_START_UM: Final = 0.5  # of a strand, beyond that
FAR_UM: Final = 2.8  # what comes so far is a strand; a shred or a drop that touches a head does not
_END_UM: Final = 0.6
_AROUND_UM: Final = (0.5, 1.5)
_PALE: Final = 235  # levels of 255: cytoplasm is darker, glass and most of the film on it is not
_WIDEST_UM: Final = 2.2  # a strand is darker than what lies within so much around it


@dataclass(frozen=True, slots=True)
class Strand:
    """Something thin that leaves an object: where it starts, in working pixels, and in how many places it goes on."""

    start: NDArray[np.float64]
    ends: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Whether a strand leaves an object, and how much of what lies 0.5 to 1.5 µm around it is stained, 0 to 1."""

    strand: bool
    stained: float


def strands(flat: FlatField, pieces: list[Polygon], contrast: int) -> list[Strand]:
    """The strands that leave the object of `pieces` (working pixels): they are darker than what lies beside them.

    `contrast` is by how many levels of 255, everywhere from the object's edge to 2.8 µm away from it. One that passes
    the object leaves it twice.
    """
    around = _around(flat, pieces, contrast)
    ends = _parts(around.ends, around.labels)
    goes_on = np.bincount([label for label, _ in ends], minlength=around.labels.max() + 1)
    return [
        Strand(middle + around.corner, int(goes_on[label]))
        for label, middle in _parts(around.starts, around.labels)
        if goes_on[label]
    ]


def surroundings(flat: FlatField, piece: Polygon, contrast: int) -> Surroundings:
    """What lies around the object `piece` (working pixels); `contrast` as for `strands`, which are not told apart."""
    around = _around(flat, [piece], contrast)
    goes_on = np.zeros(around.labels.max() + 1, np.bool_)
    goes_on[around.labels[around.ends]] = True
    beyond = around.green[(around.away > _AROUND_UM[0]) & (around.away < _AROUND_UM[1])]
    return Surroundings(
        bool(goes_on[around.labels[around.starts]].any()), float(np.mean(beyond < _PALE)) if beyond.size else 0.0
    )


@dataclass(frozen=True, slots=True)
class _Around:
    """The part of a field around an object, `[h, w]` from `corner`: `away` is the distance to the object in µm.

    `labels` number what is darker than what lies beside it; `starts` and `ends` are where that begins and goes on.
    """

    corner: NDArray[np.int64]
    green: NDArray[np.uint8]
    away: NDArray[np.float32]
    labels: NDArray[np.int32]
    starts: NDArray[np.bool_]
    ends: NDArray[np.bool_]


def _around(flat: FlatField, pieces: list[Polygon], contrast: int) -> _Around:
    um = flat.um_per_px
    height, width = flat.size
    x, y, w, h = cv2.boundingRect(np.concatenate(pieces))
    reach = round(FAR_UM / um) + 1
    left, top = max(0, x - reach), max(0, y - reach)
    right, bottom = min(width, x + w + reach), min(height, y + h + reach)
    green = np.asarray(cv2.GaussianBlur(flat.green(left, top, right - left, bottom - top), GRAIN_PX, 0), np.uint8)
    window = np.ones((round(_WIDEST_UM / um) | 1,) * 2, np.uint8)
    darker = cv2.subtract(cv2.morphologyEx(green, cv2.MORPH_CLOSE, window, borderType=cv2.BORDER_REPLICATE), green)
    beside = np.ones(green.shape, np.uint8)
    for piece in pieces:
        cv2.fillPoly(beside, [np.rint(piece).astype(np.int32)], 0, offset=(-left, -top))
    away = np.asarray(cv2.distanceTransform(beside, cv2.DIST_L2, 3), np.float32) * np.float32(um)
    dark = (np.asarray(darker) > contrast) & (away > _NEAR_UM) & (away < FAR_UM)
    labels = np.asarray(cv2.connectedComponents(dark.view(np.uint8))[1], np.int32)
    starts, ends = dark & (away < _NEAR_UM + _START_UM), dark & (away > FAR_UM - _END_UM)
    return _Around(np.array([left, top]), green, away, labels, starts, ends)


def _parts(mask: NDArray[np.bool_], labels: NDArray[np.int32]) -> list[tuple[int, NDArray[np.float64]]]:
    """Each connected part of `mask`: the label of it, and its middle."""
    count, parts, _, middles = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    whose = np.zeros(count, np.int64)
    whose[parts[mask]] = labels[mask]
    return [(int(whose[part]), np.asarray(middles[part])) for part in range(1, count)]
