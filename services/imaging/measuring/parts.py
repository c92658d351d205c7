"""The parts of heads: acrosome, vacuoles, and the midpiece where it joins. All heads of a strip at once."""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.tracing import disc
from services.imaging.measuring.head_strip import HeadStrip

Floats = NDArray[np.float64]

_RIM_UM: Final = 0.23  # the blurred edge of a head is as pale as an acrosome
_SLICES: Final = 32
_VISIBLE: Final = 60.0  # grey levels between the two ends of a head; below, acrosome and nucleus cannot be told apart
_BOUNDARY: Final = 0.4  # of the way from nucleus to acrosome: where people draw the line between them
_VACUOLE_UM: Final = 0.77  # a vacuole is paler than what surrounds it in a window of this size …
_VACUOLE_LEVELS: Final = np.float32(8)  # … by so many grey levels
_SMALLEST_VACUOLE_UM2: Final = 0.05
_LONGEST_VACUOLE_UM: Final = 1.8
_BAND_UM: Final = (0.35, 1.3)  # distance from the outline at which a midpiece is looked for
FARTHEST_MIDPIECE_UM: Final = _BAND_UM[1]
_FAINTEST_MIDPIECE: Final = 10  # grey levels darker than empty glass
_AT_THE_TIP: Final = 0.75  # cosine to the long axis, seen from the middle of the head
_EVEN: Final = 0.6  # least ratio of the areas of a strand's two halves
_STRAND_EDGE: Final = 0.4  # of its darkness: where a strand ends to its sides
_WIDEST_MIDPIECE_UM: Final = 1.4  # wider is another cell or a lump of cytoplasm


@dataclass(frozen=True, slots=True)
class Axes:
    """The long axes of heads: middles `x`, `y` in pixels of their own, unit vectors `dx`, `dy`, all `[n]`.

    Which end is the front is not known.
    """

    x: Floats
    y: Floats
    dx: Floats
    dy: Floats


@dataclass(frozen=True, slots=True)
class Midpiece:
    """Width at the insertion, µm, and angle to the long axis of the head, degrees from 0 to 90."""

    width_um: float
    angle_deg: float


def long_axes(strip: HeadStrip) -> Axes:
    """The axis of largest spread of the pixels of each head."""
    rows, columns = _places(strip.mask)
    head, rows = np.divmod(rows, strip.height)
    areas = np.bincount(head)
    x, y = np.bincount(head, columns) / areas, np.bincount(head, rows) / areas
    across, down = columns - x[head], rows - y[head]
    spread = np.bincount(head, across**2 - down**2)
    angle = 0.5 * np.arctan2(2 * np.bincount(head, across * down), spread)
    return Axes(x, y, np.cos(angle), np.sin(angle))


def acrosomes(strip: HeadStrip, axes: Axes) -> tuple[list[float | None], NDArray[np.intp]]:
    """The acrosome's share of each head area, and where it lies: along the axis (1) or against it (-1).

    None and 0 where it cannot be told apart. A head is cut into slices across its long axis; the acrosome is the paler
    end, up to the slice where the level passes `_BOUNDARY` of the way from the darkest to the palest tenth.
    """
    heads = strip.mask.view(np.bool_)
    rows, columns = _places(strip.mask)
    head, rows = np.divmod(rows, strip.height)
    along = columns * axes.dx[head] + rows * axes.dy[head]
    starts = np.searchsorted(head, np.arange(len(axes.x)))
    low, high = np.minimum.reduceat(along, starts), np.maximum.reduceat(along, starts)
    slices = head * _SLICES + ((along - low[head]) * (_SLICES / (high - low + 1e-6))[head]).astype(np.intp)
    inner = _eroded(strip.mask, _RIM_UM / strip.um_per_px).view(np.bool_)[heads]
    grey = _smooth(strip.grey, 0.13 / strip.um_per_px)[heads]
    shape = len(starts), _SLICES
    areas = np.bincount(slices, minlength=math.prod(shape)).reshape(shape)
    weights = np.bincount(slices[inner], minlength=math.prod(shape)).reshape(shape)
    levels = np.bincount(slices[inner], grey[inner], math.prod(shape)).reshape(shape) / np.maximum(weights, 1)
    seen = weights > 1
    enough = seen.sum(axis=1) >= _SLICES // 4
    for k in np.flatnonzero(enough & ~seen.all(axis=1)):
        known = np.flatnonzero(seen[k])
        levels[k] = np.interp(np.arange(_SLICES), known, levels[k, known])
    third = _SLICES // 3
    turned = levels[:, :third].sum(axis=1) < levels[:, -third:].sum(axis=1)
    levels[turned], areas[turned] = levels[turned, ::-1], areas[turned, ::-1]
    ranked = np.sort(levels, axis=1)
    dark, pale = ranked[:, _SLICES // 10], ranked[:, -1 - _SLICES // 10]
    seen_apart = enough & (pale - dark >= _VISIBLE)
    last = np.argmax(levels < (dark + _BOUNDARY * (pale - dark))[:, None], axis=1)
    before = np.take_along_axis(np.cumsum(areas, axis=1) - areas, last[:, None], axis=1)[:, 0]
    shares = (before / areas.sum(axis=1)).tolist()
    return [share if apart else None for share, apart in zip(shares, seen_apart.tolist(), strict=True)], np.where(
        seen_apart, np.where(turned, 1, -1), 0
    )


def vacuole_shares(strip: HeadStrip) -> list[float]:
    """The share of each head area that is paler than its surroundings and does not open to the head's edge."""
    inner = _eroded(strip.mask, _RIM_UM / strip.um_per_px)
    grey = _smooth(strip.grey, max(0.5, 0.07 / strip.um_per_px))
    window = (round(_VACUOLE_UM / strip.um_per_px) | 1,) * 2
    size = cv2.boxFilter(inner, cv2.CV_32F, window, normalize=False)
    total = cv2.boxFilter(inner * grey, cv2.CV_32F, window, normalize=False)
    pale = (((grey - _VACUOLE_LEVELS) * size > total) & inner.view(np.bool_)).view(np.uint8)
    whole = np.count_nonzero(strip.mask.reshape(-1, strip.height * strip.mask.shape[1]), axis=1)
    labels = cv2.connectedComponents(pale)[1]
    edge = inner - _eroded(inner, 1)
    on_edge = np.bincount(labels[edge.view(np.bool_)], minlength=labels.max() + 1)[1:]
    rows, columns = _places(pale)
    spot = labels[rows, columns] - 1
    areas = np.bincount(spot, minlength=len(on_edge))
    # One that lies along the edge for more than a quarter of its girth is the pale rim, not a hole in the head.
    enclosed = on_edge < 0.25 * 2 * np.sqrt(np.pi * areas)
    large = areas * strip.um_per_px**2 >= _SMALLEST_VACUOLE_UM2
    vacuoles = enclosed & large
    if not vacuoles.any():
        return [0.0] * len(whole)
    order = np.argsort(spot, kind="stable")
    order = order[vacuoles[spot[order]]]
    starts = np.flatnonzero(np.diff(spot[order], prepend=-1))
    # What reaches across the head is the step from nucleus to acrosome.
    heights, widths = (
        np.maximum.reduceat(where[order], starts) - np.minimum.reduceat(where[order], starts) + 1
        for where in (rows, columns)
    )
    short = np.maximum(heights, widths) * strip.um_per_px <= _LONGEST_VACUOLE_UM
    head = rows[order][starts] // strip.height
    found = np.bincount(head[short], areas[vacuoles][short], len(whole))
    shares: list[float] = (found / whole).tolist()
    return shares


def midpieces(strip: HeadStrip, axes: Axes, fronts: NDArray[np.intp]) -> list[Midpiece | None]:
    """The midpiece of each head as it leaves it; None where none is seen.

    Looked for in a band around the head: the largest even dark strand that crosses the band at the tip. One at the side
    of the head belongs to another cell. `fronts` is what `acrosomes` says; where it is 0, either end is looked at.
    """
    near, far = (d / strip.um_per_px for d in _BAND_UM)
    outside = np.asarray(cv2.distanceTransform(1 - strip.mask, cv2.DIST_L2, 3))
    grey = _smooth(strip.grey, max(0.5, 0.05 / strip.um_per_px))
    dark = (grey < 255 - _FAINTEST_MIDPIECE) & (outside > near) & (outside < far)
    found: list[Midpiece | None] = [None] * len(fronts)
    labels = cv2.connectedComponents(dark.view(np.uint8), connectivity=4)[1][dark]
    large = np.bincount(labels) * strip.um_per_px**2 >= 0.2 * (_BAND_UM[1] - _BAND_UM[0])
    rows, columns = (where[large[labels]] for where in _places(dark))
    order = np.argsort(labels[large[labels]], kind="stable")
    rows, columns = rows[order], columns[order]
    _, starts, strand = np.unique(labels[large[labels]][order], return_index=True, return_inverse=True)
    if not len(starts):
        return found
    distance, darkness = outside[rows, columns], 255 - grey[rows, columns]
    crosses = np.minimum.reduceat(distance, starts) <= near + 2
    crosses &= np.maximum.reduceat(distance, starts) >= far - 2
    areas = np.bincount(strand)
    ranked = darkness[np.lexsort((darkness, strand))]
    edges = ranked[starts + (0.9 * areas).astype(np.intp)] * _STRAND_EDGE
    core = crosses[strand] & (darkness > edges[strand])
    if not core.any():
        return found
    head, rows = np.divmod(rows[core], strip.height)
    strands = _Strands.of(strand[core], columns[core], rows, distance[core] > (near + far) / 2)
    head = head[strands.starts]
    out_x, out_y = strands.mean_x - axes.x[head], strands.mean_y - axes.y[head]
    ends = (out_x * axes.dx[head] + out_y * axes.dy[head]) / np.hypot(out_x, out_y)
    ends = np.where(fronts[head] == 0, np.abs(ends), -fronts[head] * ends)
    dx, dy = strands.directions()
    widths = strands.widths(dx, dy) * strip.um_per_px
    angles = np.degrees(np.arccos(np.minimum(1.0, np.abs(dx * axes.dx[head] + dy * axes.dy[head]))))
    good = strands.even() & (ends >= _AT_THE_TIP) & (widths <= _WIDEST_MIDPIECE_UM)
    for k in np.argsort(ends * strands.areas, kind="stable"):  # the largest last, and so it stays
        if good[k]:
            found[head[k]] = Midpiece(float(widths[k]), float(angles[k]))
    return found


@dataclass(frozen=True, slots=True)
class _Strands:
    """Pixels `x`, `y` of strands, in the order of `strand`, and which are `away`: in the half further from the head."""

    strand: NDArray[np.intp]
    starts: NDArray[np.intp]
    x: NDArray[np.intp]
    y: NDArray[np.intp]
    away: NDArray[np.bool_]
    areas: NDArray[np.intp]
    mean_x: Floats
    mean_y: Floats

    @staticmethod
    def of(strand: NDArray[np.intp], x: NDArray[np.intp], y: NDArray[np.intp], away: NDArray[np.bool_]) -> "_Strands":
        _, starts, strand = np.unique(strand, return_index=True, return_inverse=True)
        areas = np.bincount(strand)
        return _Strands(
            strand, starts, x, y, away, areas, np.bincount(strand, x) / areas, np.bincount(strand, y) / areas
        )

    def even(self) -> NDArray[np.bool_]:
        """Which keep their width: lumps of cytoplasm and debris swell or fade."""
        further = np.bincount(self.strand, self.away)
        nearer = self.areas - further
        return np.asarray((_EVEN * nearer < further) & (_EVEN * further < nearer))

    def directions(self) -> tuple[Floats, Floats]:
        """Unit vectors from the one half to the other: a strand is too short for an axis of its spread."""
        far, near = self.strand[self.away], self.strand[~self.away]
        count = len(self.areas)
        dx, dy = (
            np.bincount(far, where[self.away], count) / np.maximum(np.bincount(far, minlength=count), 1)
            - np.bincount(near, where[~self.away], count) / np.maximum(np.bincount(near, minlength=count), 1)
            for where in (self.x, self.y)
        )
        length = np.hypot(dx, dy) + 1e-9
        return dx / length, dy / length

    def widths(self, dx: Floats, dy: Floats) -> Floats:
        """Area over length along `dx`, `dy`, in pixels."""
        along = self.x * dx[self.strand] + self.y * dy[self.strand]
        lengths = np.maximum.reduceat(along, self.starts) - np.minimum.reduceat(along, self.starts) + 1
        return np.asarray(self.areas / lengths)


def _eroded(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.erode(mask, disc(radius)), np.uint8)


def _places(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of what is not 0; NumPy's `nonzero` of two dimensions takes three times as long."""
    rows, columns = np.divmod(np.flatnonzero(mask.view(np.bool_)), mask.shape[1])
    return rows, columns


def _smooth(grey: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """A Gaussian blur; on a strip, tall and narrow, OpenCV's own takes up to three times as long."""
    kernel = cv2.getGaussianKernel(round(6 * sigma + 1) | 1, sigma, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(grey, -1, kernel, kernel), np.uint8)
