"""Cut touching objects apart where their outline has a waist."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float32]
"""`[n, 2]` x, y."""

_POINTS: Final = 72
_RESAMPLING: Final = 0.5  # px; points of equal distance lie so much deeper, or less deep, than the polygon itself
_WAIST: Final = 0.75
_SHORTEST_ARC: Final = 5  # points; nearer ones are neighbours on the polygon, not the two sides of a waist
# Which points [point, end of the cut] the two pieces have, where point 0 and the end are of both.
_BEFORE_THE_CUT: Final = np.triu(np.ones((_POINTS, _POINTS), np.bool_))
_BEHIND_THE_CUT: Final = ~_BEFORE_THE_CUT | np.eye(_POINTS, dtype=np.bool_) | (np.arange(_POINTS) == 0)[:, None]

Accept = Callable[[Polygon, float], bool]
"""Whether to cut off this (smaller) piece at a waist of this ratio."""


def split_at_waists(polygon: Polygon, notch: float, smallest_area: float, accept: Accept) -> list[Polygon]:
    """Cut `polygon` at its waists until none is left; the pieces, or the polygon alone.

    A cut starts at a notch at least `notch` deep below the convex hull, and is shorter than 0.75 × the extent, along
    the cut, of both pieces: a convex shape has none. No piece is smaller than `smallest_area` (px²).
    """
    pieces, whole = [polygon], []
    while pieces:
        piece = pieces.pop()
        cut = _best_cut(piece, notch, smallest_area, accept)
        if cut is None:
            whole.append(piece)
        else:
            pieces.extend(cut)
    return whole


def _best_cut(polygon: Polygon, notch: float, smallest_area: float, accept: Accept) -> tuple[Polygon, Polygon] | None:
    if cv2.contourArea(polygon) < 2 * smallest_area or not _notches(polygon, notch - _RESAMPLING):
        return None
    points = _evenly(polygon)
    best, chosen = _WAIST, None
    for start in _notches(points, notch):
        turned = np.roll(points, -start, axis=0)
        ratios = _waist_ratios(turned)
        for end in np.argsort(ratios):
            if ratios[end] >= best:
                break
            smaller, larger = sorted(
                (turned[: end + 1], np.concatenate([turned[end:], turned[:1]])), key=cv2.contourArea
            )
            middle = (turned[0] + turned[end]) / 2
            if (
                cv2.contourArea(smaller) >= smallest_area
                and cv2.pointPolygonTest(points, (float(middle[0]), float(middle[1])), False) > 0
                and accept(smaller, float(ratios[end]))
            ):
                best, chosen = float(ratios[end]), (smaller, larger)
                break
    return chosen


def _waist_ratios(points: Polygon) -> NDArray[np.float32]:
    """Of the cut from point 0 to each point: its length ÷ the smaller extent, along the cut, of what it leaves."""
    steps = points - points[0]
    lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-6)
    along = points @ (steps / lengths[:, None]).T  # [point, end of the cut]
    one, other = (
        np.max(along, axis=0, where=piece, initial=-np.inf) - np.min(along, axis=0, where=piece, initial=np.inf)
        for piece in (_BEFORE_THE_CUT, _BEHIND_THE_CUT)
    )
    ratios = lengths / np.maximum(np.minimum(one, other), 1e-6)
    ratios[:_SHORTEST_ARC] = ratios[-_SHORTEST_ARC:] = np.inf
    return np.asarray(ratios, np.float32)


def _evenly(polygon: Polygon) -> Polygon:
    """The polygon resampled to `_POINTS` points of equal distance."""
    closed = np.concatenate([polygon, polygon[:1]]).astype(np.float32)
    travelled = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0, travelled[-1], _POINTS, endpoint=False)
    return np.stack([np.interp(at, travelled, closed[:, 0]), np.interp(at, travelled, closed[:, 1])], 1).astype(
        np.float32
    )


def _notches(points: Polygon, depth: float) -> list[int]:
    fine = np.round(points * 8).astype(np.int32)  # convexityDefects takes whole numbers only
    hull = cv2.convexHull(fine, returnPoints=False)
    if hull is None or hull.size < 4:
        return []
    defects = cv2.convexityDefects(fine, np.sort(hull.reshape(-1, 1), axis=0)[::-1].copy())
    if defects is None:
        return []
    # Rows are start, end, farthest point and its depth in 256ths.
    rows = defects.reshape(-1, 4)
    farthest: list[int] = rows[rows[:, 3] >= 256 * 8 * depth, 2].tolist()
    return farthest
