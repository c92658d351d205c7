"""The parts of one head: acrosome, vacuoles, and the midpiece where it joins."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.outline import Closeup, disc

_RIM_UM: Final = 0.23  # the blurred edge of a head is as pale as an acrosome
_SLICES: Final = 32
_VISIBLE: Final = 60.0  # grey levels between the two ends of a head; below, acrosome and nucleus cannot be told apart
_BOUNDARY: Final = 0.4  # of the way from nucleus to acrosome: where people draw the line between them
_VACUOLE_UM: Final = 0.77  # a vacuole is paler than what surrounds it in a window of this size …
_VACUOLE_LEVELS: Final = 8.0  # … by so many grey levels
_SMALLEST_VACUOLE_UM2: Final = 0.05
_LONGEST_VACUOLE_UM: Final = 1.8
_BAND_UM: Final = (0.35, 1.3)  # distance from the outline at which a midpiece is looked for
_FAINTEST_MIDPIECE: Final = 10.0  # grey levels darker than empty glass
_AT_THE_TIP: Final = 0.75  # cosine to the long axis, seen from the middle of the head
_EVEN: Final = 0.6  # least ratio of the areas of a strand's two halves
_STRAND_EDGE: Final = 0.4  # of its darkness: where a strand ends to its sides
_WIDEST_MIDPIECE_UM: Final = 1.4  # wider is another cell or a lump of cytoplasm


@dataclass(frozen=True, slots=True)
class Axis:
    """The long axis of a head: `centre` and unit vector `forward`, x then y; which end is the front is not known."""

    centre: NDArray[np.float64]
    forward: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Midpiece:
    """Width at the insertion, µm, and angle to the long axis of the head, degrees from 0 to 90."""

    width_um: float
    angle_deg: float


def long_axis(mask: NDArray[np.uint8]) -> Axis:
    """The axis of largest spread of the pixels of `mask` `[h, w]`."""
    moments = cv2.moments(mask, True)
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    angle = 0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    return Axis(centre, np.array([np.cos(angle), np.sin(angle)]))


def acrosome(head: Closeup, axis: Axis) -> tuple[float, NDArray[np.float64]] | None:
    """The acrosome's share of the head area and the unit vector towards it; None where it cannot be told apart.

    The head is cut into slices across its long axis; the acrosome is the paler end, up to the slice where the level
    passes `_BOUNDARY` of the way from the darkest to the palest tenth.
    """
    rows, columns = np.nonzero(head.mask)
    along = (columns - axis.centre[0]) * axis.forward[0] + (rows - axis.centre[1]) * axis.forward[1]
    low, high = along.min(), along.max()
    slices = np.minimum(((along - low) / (high - low + 1e-6) * _SLICES).astype(np.intp), _SLICES - 1)
    grey = cv2.GaussianBlur(head.grey, (0, 0), 0.13 / head.um_per_px)[rows, columns]
    inner = cv2.erode(head.mask, disc(_RIM_UM / head.um_per_px))[rows, columns].astype(np.float64)
    areas = np.bincount(slices, minlength=_SLICES)
    weights = np.bincount(slices, inner, _SLICES)
    seen = np.nonzero(weights > 1)[0]
    if len(seen) < _SLICES // 4:
        return None
    levels = np.interp(np.arange(_SLICES), seen, np.bincount(slices, inner * grey, _SLICES)[seen] / weights[seen])
    towards = axis.forward
    if levels[: _SLICES // 3].mean() < levels[-_SLICES // 3 :].mean():
        levels, areas = levels[::-1], areas[::-1]
    else:
        towards = -towards
    dark, pale = np.sort(levels)[[_SLICES // 10, -1 - _SLICES // 10]]
    if pale - dark < _VISIBLE:
        return None
    nuclear = levels < dark + _BOUNDARY * (pale - dark)
    return float(areas[: int(np.argmax(nuclear))].sum() / areas.sum()), towards


def vacuole_share(head: Closeup) -> float:
    """The share of the head area that is paler than its surroundings and does not open to the head's edge."""
    inner = cv2.erode(head.mask, disc(_RIM_UM / head.um_per_px))
    weight = inner.astype(np.float32)
    grey = cv2.GaussianBlur(head.grey, (0, 0), max(0.5, 0.07 / head.um_per_px)).astype(np.float32)
    window = (round(_VACUOLE_UM / head.um_per_px) | 1,) * 2
    around = cv2.boxFilter(weight * grey, -1, window) / np.maximum(cv2.boxFilter(weight, -1, window), 1e-3)
    pale = ((grey - around > _VACUOLE_LEVELS) & (inner > 0)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pale)
    areas = stats[:, cv2.CC_STAT_AREA]
    edge = inner - cv2.erode(inner, disc(1))
    on_edge = np.bincount(labels[edge > 0], minlength=count)
    # One that lies along the edge for more than a quarter of its girth is the pale rim, not a hole in the head.
    enclosed = on_edge < 0.25 * 2 * np.sqrt(np.pi * areas)
    large = areas * head.um_per_px**2 >= _SMALLEST_VACUOLE_UM2
    # What reaches across the head is the step from nucleus to acrosome.
    extents = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) * head.um_per_px
    vacuoles = enclosed & large & (extents <= _LONGEST_VACUOLE_UM)
    return float(areas[1:][vacuoles[1:]].sum() / np.count_nonzero(head.mask))


def midpiece(head: Closeup, axis: Axis, backward: NDArray[np.float64] | None) -> Midpiece | None:
    """The midpiece as it leaves the head, on the end `backward` where that is known; None where none is seen.

    Looked for in a band around the head: the largest even dark strand that crosses the band at the tip. One at the side
    of the head belongs to another cell.
    """
    near, far = (d / head.um_per_px for d in _BAND_UM)
    outside = cv2.distanceTransform(1 - head.mask, cv2.DIST_L2, 3)
    grey = cv2.GaussianBlur(head.grey, (0, 0), max(0.5, 0.05 / head.um_per_px))
    strands = ((grey < 255 - _FAINTEST_MIDPIECE) & (outside > near) & (outside < far)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(strands, connectivity=4)
    largest, best = 0.0, None
    for label, (x, y, w, h, area) in enumerate(stats[1:], start=1):
        if area * head.um_per_px**2 < 0.2 * (_BAND_UM[1] - _BAND_UM[0]):
            continue
        rows, columns = np.nonzero(labels[y : y + h, x : x + w] == label)
        rows, columns = rows + y, columns + x
        distance = outside[rows, columns]
        if distance.min() > near + 2 or distance.max() < far - 2:
            continue
        darkness = 255.0 - grey[rows, columns]
        core = darkness > np.sort(darkness)[int(0.9 * len(darkness))] * _STRAND_EDGE
        points = np.stack([columns, rows], 1)[core].astype(np.float64)
        out = points.mean(axis=0) - axis.centre
        out /= np.linalg.norm(out)
        end = float(out @ backward) if backward is not None else abs(float(out @ axis.forward))
        if end >= _AT_THE_TIP and end * len(points) > largest:
            found = _as_midpiece(points, distance[core] > (near + far) / 2, axis, head.um_per_px)
            if found is not None:
                largest, best = end * len(points), found
    return best


def _as_midpiece(points: NDArray[np.float64], away: NDArray[np.bool_], axis: Axis, um_per_px: float) -> Midpiece | None:
    """The strand of `points` `[n, 2]` as a midpiece; `away` marks its half that is further from the head.

    Its direction is from the one half to the other: it is too short for an axis of its spread.
    """
    further = int(np.count_nonzero(away))
    nearer = len(away) - further
    if not (_EVEN * nearer < further and _EVEN * further < nearer):
        return None  # lumps of cytoplasm and debris swell or fade; a midpiece keeps its width
    direction = points[away].mean(axis=0) - points[~away].mean(axis=0)
    direction /= np.linalg.norm(direction) + 1e-9
    along = points @ direction
    width = len(points) / (along.max() - along.min() + 1) * um_per_px
    if width > _WIDEST_MIDPIECE_UM:
        return None
    return Midpiece(float(width), float(np.degrees(np.arccos(min(1.0, abs(float(direction @ axis.forward)))))))
