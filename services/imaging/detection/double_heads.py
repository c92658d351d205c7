"""Two heads of one cell, or two cells that touch: told by the tails."""

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.candidates import Candidate
from services.imaging.detection.splitting import Polygon
from services.imaging.detection.strands import strands
from services.imaging.detection.transmittance import FlatField

Point = NDArray[np.float64]

_TAIL: Final = 10  # levels of 255: half as dark as the palest of the tails that were measured
_AT_BOTH_UM: Final = 1.2
_NEAREST_UM: Final = 1.3
_BEHIND: Final = 0.75  # cosine to the long axis of a head
_PALER_IN_FRONT: Final = 15  # levels of 255
_LEAST_UM2: Final = 2.5  # of each head
_LEAST_DEEP: Final = 0.25  # share of each that is stained as only chromatin is


def join_double_heads(candidates: list[Candidate], flat: FlatField) -> list[Candidate]:
    """`candidates`, with those that are two heads of one cell in one.

    Such heads touch, and one tail starts where both of them end. Two cells have two tails: another strand is nobody's
    only where it starts at the paler end of a head, its front. What is not seen clearly stays two.
    """
    joined: list[Candidate] = []
    gone: set[int] = set()
    for first in candidates:
        if id(first) in gone:
            continue
        second = _only_sibling(first, candidates)
        if second is not None and _is_one_cell(first.polygon, second.polygon, flat):
            gone.add(id(second))
            joined.append(_both(first, second))
        else:
            joined.append(first)
    return joined


def _only_sibling(first: Candidate, candidates: list[Candidate]) -> Candidate | None:
    if len(first.siblings) != 1 or not _may_be_a_head(first):
        return None
    found = next((other for other in candidates if other.polygon is first.siblings[0]), None)
    return found if found is not None and _may_be_a_head(found) else None


def _may_be_a_head(candidate: Candidate) -> bool:
    return not candidate.on_border and candidate.area_um2 >= _LEAST_UM2 and candidate.deep >= _LEAST_DEEP


def _is_one_cell(first: Polygon, second: Polygon, flat: FlatField) -> bool:
    found = strands(flat, [first, second], _TAIL)
    near = _AT_BOTH_UM / flat.um_per_px
    common = [strand for strand in found if max(_away(strand.start, piece) for piece in (first, second)) <= near]
    if len(common) != 1:
        return False
    others = [strand.start for strand in found if strand is not common[0]]
    return not others or all(_front_shows(piece, common[0].start, others, flat) for piece in (first, second))


def _front_shows(piece: Polygon, tail: Point, others: list[Point], flat: FlatField) -> bool:
    """Whether `tail` starts behind `piece`, which is paler in front, and none of `others` starts nearer to its rear.

    A strand at the front of a head is another cell's.
    """
    middle = piece.mean(axis=0)
    forward = middle - tail
    corners = cv2.boxPoints(cv2.minAreaRect(piece))
    long = max(corners[1] - corners[0], corners[2] - corners[1], key=lambda side: float(side @ side))
    if abs(float(long @ forward)) < _BEHIND * float(np.hypot(*long) * np.hypot(*forward)):
        return False
    x, y, w, h = cv2.boundingRect(piece)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.rint(piece).astype(np.int32)], 1, offset=(-x, -y))
    rows, columns = np.nonzero(inside)
    front = (columns + x - middle[0]) * forward[0] + (rows + y - middle[1]) * forward[1] > 0
    levels = flat.green(x, y, w, h)[rows, columns].astype(np.float32)
    if levels[front].mean() - levels[~front].mean() < _PALER_IN_FRONT:
        return False
    near = _NEAREST_UM / flat.um_per_px
    return all((other - middle) @ forward > 0 for other in others if _away(other, piece) <= near)


def _away(point: Point, polygon: Polygon) -> float:
    return -float(cv2.pointPolygonTest(polygon, (float(point[0]), float(point[1])), True))


def _both(first: Candidate, second: Candidate) -> Candidate:
    x, y, w, h = cv2.boundingRect(np.concatenate([first.polygon, second.polygon]))
    canvas = np.zeros((h + 2, w + 2), np.uint8)
    for candidate in (first, second):
        cv2.fillPoly(canvas, [np.rint(candidate.polygon).astype(np.int32)], 1, offset=(1 - x, 1 - y))
    canvas = np.asarray(cv2.morphologyEx(canvas, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))
    contours, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x - 1, y - 1))
    area = first.area_um2 + second.area_um2
    return replace(
        first,
        polygon=max(contours, key=cv2.contourArea).reshape(-1, 2).astype(np.float32),
        siblings=(),
        area_um2=area,
        deep=(first.area_um2 * first.deep + second.area_um2 * second.deep) / area,
        double=True,
    )
