"""Objects of a field that may be heads: everything stained and thicker than a tail, cut apart where it touches."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.splitting import Polygon, split_at_waists
from services.imaging.detection.tracing import disc, up_to_vector
from services.imaging.detection.transmittance import FlatField

SPECK_UM2: Final = 2.0  # bacteria, grains of stain: not worth a line in the list of what was rejected
_SMALLEST_UM2: Final = 1.0  # of a speck that may be a pin head …
_PIN_DEEP: Final = 0.6  # … as deep as this …
_PIN_SOLID: Final = 0.96  # … and as round: its share of its convex hull …
_PIN_LONG: Final = 1.6  # … and its length ÷ width
STAINED: Final = 0.768  # green transmittance below which something is stained; tails and glass are brighter
_DEEP: Final = 0.4  # … and below which it is stained as only chromatin is
_TAIL_UM: Final = 0.95  # whatever is thinner is tail
_HOLE_UM2: Final = 2.5  # a vacuole; a looped tail encloses more
_NOTCH_UM: Final = 0.25
_FRAGMENT_UM2: Final = 1.0
_SMALL_UM2: Final = 5.0
_CLEAR_WAIST: Final = 0.5
_NUCLEAR: Final = 0.4
_CLUMP_UM2: Final = 60.0  # more than a group of heads: no waist in it means anything


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stained object, or a piece of one. `polygon` and `siblings` (the other pieces) are in working pixels.

    `deep` is the share of it that is stained deeply, `hue` its absorbance in red ÷ that in green. `double`: it is two
    heads of one cell.
    """

    polygon: Polygon
    siblings: tuple[Polygon, ...]
    area_um2: float
    deep: float
    hue: float
    on_border: bool
    double: bool = False

    @property
    def may_be_pin_head(self) -> bool:
        """Whether it looks like a small head, its size apart: alone, deeply stained, round."""
        if self.on_border or self.siblings or self.deep < _PIN_DEEP:
            return False
        width, length = sorted(cv2.minAreaRect(self.polygon)[1])
        solid = cv2.contourArea(self.polygon) / max(cv2.contourArea(cv2.convexHull(self.polygon)), 1.0)
        return solid >= _PIN_SOLID and length <= _PIN_LONG * width


def find_candidates(flat: FlatField) -> list[Candidate]:
    """The stained objects of `flat` that are thicker than a tail; specks below 2 µm² only if they may be pin heads."""
    least, speck, hole = (area / flat.um_per_px**2 for area in (_SMALLEST_UM2, SPECK_UM2, _HOLE_UM2))
    candidates = []
    for stained in _objects(flat.stained, least, hole):
        for thick in _thick_parts(stained, flat.size, flat.um_per_px):
            if cv2.contourArea(thick) < speck:
                if cv2.contourArea(thick) >= least:
                    small = _candidate(thick.reshape(-1, 2).astype(np.float32), (), flat)
                    candidates += [small] if small.may_be_pin_head else []
                continue
            pieces = _pieces(thick.reshape(-1, 2).astype(np.float32), flat)
            for k, piece in enumerate(pieces):
                if cv2.contourArea(piece) >= speck:
                    candidates.append(_candidate(piece, (*pieces[:k], *pieces[k + 1 :]), flat))
    return candidates


def _objects(mask: NDArray[np.uint8], least: float, hole: float) -> Iterator[list[NDArray[np.int32]]]:
    """The outline of each object of `mask` of at least `least` pixels, and of its holes of more than `hole` pixels.

    A ring, a frame, the loop of a tail: what lies in such a hole is an object of its own. A smaller one is filled, and
    before thin parts are taken away: the rim around a vacuole is as thin as a tail.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return
    holes: dict[int, list[NDArray[np.int32]]] = defaultdict(list)
    outer = []
    for number, (contour, parent) in enumerate(zip(contours, hierarchy.reshape(-1, 4)[:, 3].tolist(), strict=True)):
        if len(contour) < 4:
            continue
        area = cv2.contourArea(contour)
        if parent < 0 and area >= least:
            outer.append(number)
        elif parent >= 0 and area > hole:
            holes[parent].append(np.asarray(contour, np.int32))
    for number in outer:
        yield [np.asarray(contours[number], np.int32), *holes[number]]


def _thick_parts(stained: list[NDArray[np.int32]], shape: tuple[int, ...], um_per_px: float) -> list[NDArray[np.int32]]:
    """Outlines of what remains of one object, given by its outline and its holes, without its thin parts.

    The object alone: most of an opening of the whole field, of `shape`, is spent on empty glass.
    """
    height, width = shape
    x, y, w, h = cv2.boundingRect(stained[0])
    left, top, right, bottom = max(0, x - 1), max(0, y - 1), min(width, x + w + 1), min(height, y + h + 1)
    # What touches the border goes on behind it, as far as the opening knows: there the array has to end.
    alone = np.zeros((bottom - top, up_to_vector(right - left) if right < width else right - left), np.uint8)
    cv2.fillPoly(alone, stained, 1, offset=(-left, -top))
    thick = cv2.morphologyEx(alone, cv2.MORPH_OPEN, disc(_TAIL_UM / 2 / um_per_px))
    contours, _ = cv2.findContours(thick, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    return [np.asarray(contour, np.int32) for contour in contours]


def _pieces(polygon: Polygon, flat: FlatField) -> list[Polygon]:
    pixel = flat.um_per_px
    if cv2.contourArea(polygon) * pixel**2 > _CLUMP_UM2:
        return [polygon]

    def accept(piece: Polygon, waist: float) -> bool:
        """Cut off what is as large as a head, or pale; a small deep piece is rather the neck of a tapering head."""
        if waist < _CLEAR_WAIST or cv2.contourArea(piece) * pixel**2 >= _SMALL_UM2:
            return True
        return _candidate(piece, (), flat).deep < _NUCLEAR

    return split_at_waists(polygon, _NOTCH_UM / pixel, _FRAGMENT_UM2 / pixel**2, accept)


def _candidate(piece: Polygon, siblings: tuple[Polygon, ...], flat: FlatField) -> Candidate:
    height, width = flat.size
    x, y, w, h = cv2.boundingRect(piece)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.rint(piece).astype(np.int32)], 1, offset=(-x, -y))
    glass = flat.background_at(x + w / 2, y + h / 2)
    pixels = flat.pixels[y : y + h, x : x + w]
    through = zip(cv2.mean(pixels, inside)[:2], glass, strict=False)
    red, green = (math.log(min(max(level / max(empty, 1), 0.004), 0.996)) for level, empty in through)
    deep = int(np.count_nonzero((pixels[..., 1] < _DEEP * glass[1]) & inside.view(np.bool_)))
    return Candidate(
        piece,
        siblings,
        area_um2=cv2.contourArea(piece) * flat.um_per_px**2,
        deep=deep / max(1, cv2.countNonZero(inside)),
        hue=red / green,
        on_border=bool(x < 1 or y < 1 or x + w >= width or y + h >= height),
    )
