"""Paints cells onto a sheet of optical density.

Stain absorbs light: densities add, in whatever order things are painted, and overlapping heads come out darker. Each
thing is drawn finely on a small patch of its own (at most 0.045 µm a sub-pixel) and then averaged into the sheet.
"""

from dataclasses import dataclass, replace
from math import ceil, cos, floor, sin
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.smears.cells import CellShape
from services.smears.flagella import Strand
from services.smears.head_shapes import HeadShape, Points
from services.smears.stains import Density, Palette

_FINEST_UM: Final = 0.045
_SHIFT: Final = 4
_ONE: Final = 1 << _SHIFT
_MARGIN_UM: Final = 0.6
_FULL: Final = 180.0  # grey level of a strand of the usual strength, with room for stronger ones

Mask = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Optical density `[H, W, 3]` of a piece of a slide, and its scale. Positions on it are µm from its corner."""

    density: NDArray[np.float32]
    um_per_px: float

    @classmethod
    def empty(cls, width_px: int, height_px: int, um_per_px: float) -> "Sheet":
        """A sheet of clear glass."""
        return cls(np.zeros((height_px, width_px, 3), np.float32), um_per_px)

    @property
    def fineness(self) -> int:
        """Sub-pixels a pixel, each way."""
        return max(1, ceil(self.um_per_px / _FINEST_UM - 0.01))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a cell's origin lies on the sheet (µm), which way its apex points (radians), and if it is mirrored."""

    x: float
    y: float
    angle: float
    mirrored: bool = False

    def place(self, points: Points) -> Points:
        """`points` `[n, 2]` of the cell's frame in µm on the sheet."""
        c, s = cos(self.angle), sin(self.angle)
        flip = -1.0 if self.mirrored else 1.0
        turned: Points = points @ np.array([[c, s], [-s * flip, c * flip]])
        turned += (self.x, self.y)
        return turned


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a sheet: the pixels from (`x0`, `y0`) to (`x1`, `y1`), drawn `fine` times finer."""

    x0: int
    y0: int
    x1: int
    y1: int
    fine: int
    um_per_px: float

    @classmethod
    def around(cls, sheet: Sheet, points: Points, margin_um: float, *, coarse: bool = False) -> "Patch | None":
        """The part of `sheet` that holds `points` (µm), or None where none of it does; `coarse` is for soft things."""
        height, width = sheet.density.shape[:2]
        low = (points.min(axis=0) - margin_um) / sheet.um_per_px
        high = (points.max(axis=0) + margin_um) / sheet.um_per_px
        x0, y0 = max(floor(low[0]), 0), max(floor(low[1]), 0)
        x1, y1 = min(ceil(high[0]), width), min(ceil(high[1]), height)
        fine = 1 if coarse else sheet.fineness
        return cls(x0, y0, x1, y1, fine, sheet.um_per_px) if x0 < x1 and y0 < y1 else None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the fine drawing."""
        return (self.y1 - self.y0) * self.fine, (self.x1 - self.x0) * self.fine

    @property
    def step(self) -> float:
        """µm a sub-pixel."""
        return self.um_per_px / self.fine

    def fixed(self, points: Points) -> NDArray[np.int32]:
        """`points` (µm on the sheet) in the fixed-point sub-pixel coordinates that OpenCV draws with."""
        fine = (points / self.um_per_px - (self.x0, self.y0)) * self.fine - 0.5
        fixed: NDArray[np.int32] = np.round(fine * _ONE).astype(np.int32)
        return fixed

    def averaged(self, drawing: Mask | NDArray[np.uint8]) -> Mask:
        """A fine drawing `[h, w]` at the sheet's own scale."""
        size = (self.x1 - self.x0, self.y1 - self.y0)
        return np.asarray(cv2.resize(drawing, size, interpolation=cv2.INTER_AREA), np.float32)

    def filled(self, polygon: Points, soft_um: float) -> Mask:
        """Coverage 0–1 of a polygon (µm on the sheet), its edge softened."""
        drawing = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(drawing, [self.fixed(polygon)], 255, cv2.LINE_AA, _SHIFT)
        soft = cv2.GaussianBlur(drawing, (0, 0), max(soft_um / self.step, 0.5))
        return np.asarray(soft, np.float32) / np.float32(255)

    def add(self, sheet: Sheet, coverage: Mask | NDArray[np.uint8], density: Density) -> None:
        """Add `coverage` (fine) times `density` to the sheet."""
        flat = self.averaged(coverage)
        sheet.density[self.y0 : self.y1, self.x0 : self.x1] += flat[..., None] * np.asarray(density, np.float32)


@dataclass(frozen=True, slots=True)
class PaintedHead:
    """What was painted of a head on its patch, as fine masks: `inside`, `acrosome` and `vacuole`."""

    patch: Patch
    outline: Points
    inside: NDArray[np.bool_]
    acrosome: NDArray[np.bool_]
    vacuole: NDArray[np.bool_]


def paint_cell(
    rng: np.random.Generator, sheet: Sheet, cell: CellShape, pose: Pose, palette: Palette
) -> tuple[PaintedHead, ...]:
    """Paint a cell; returns its heads as they lie on the sheet, those that it holds any part of."""
    for flagellum in cell.flagella:
        paint_strand(sheet, flagellum.midpiece, pose, palette.midpiece)
        # Both end round, and densities add: what lies on the other is left out, or a bead would mark the joint.
        paint_strand(sheet, _without_start(flagellum.tail, 0.45 * flagellum.midpiece.widths[-1]), pose, palette.tail)
    painted = (_paint_head(rng, sheet, head, pose, palette) for head in cell.heads)
    return tuple(head for head in painted if head is not None)


def paint_strand(sheet: Sheet, strand: Strand, pose: Pose, density: Density) -> None:
    """Paint a midpiece or tail. Where a strand crosses itself it is not darker; where two cross, it is."""
    points = pose.place(strand.points)
    patch = Patch.around(sheet, points, _MARGIN_UM)
    if patch is None:
        return
    drawing = np.zeros(patch.shape, np.uint8)
    fixed = patch.fixed(points)
    last = len(fixed) - 1
    stretch = 1 if last <= 24 else 10  # points drawn at one width
    for start in range(0, last, stretch):
        end = min(start + stretch, last)
        middle = (start + end) // 2
        thickness = max(1, round(float(strand.widths[middle]) / patch.step))
        level = int(min(strand.strength[middle] * _FULL, 255.0))
        cv2.polylines(drawing, [fixed[start : end + 1]], False, level, thickness, cv2.LINE_AA, _SHIFT)
    red, green, blue = density
    patch.add(sheet, drawing, (red / _FULL, green / _FULL, blue / _FULL))


def _without_start(strand: Strand, length_um: float) -> Strand:
    """`strand` less its first `length_um`, of which it has more."""
    reached = np.cumsum(np.hypot(*np.diff(strand.points[:8], axis=0).T))
    whole = min(int(np.searchsorted(reached, length_um)), len(strand.points) - 2)
    left, right = strand.points[whole], strand.points[whole + 1]
    share = (length_um - (reached[whole - 1] if whole else 0.0)) / float(np.hypot(*(right - left)))
    points = np.vstack([left + min(share, 0.9) * (right - left), strand.points[whole + 1 :]])
    return replace(strand, points=points, widths=strand.widths[whole:], strength=strand.strength[whole:])


def _paint_head(
    rng: np.random.Generator, sheet: Sheet, head: HeadShape, pose: Pose, palette: Palette
) -> PaintedHead | None:
    outline = pose.place(head.outline)
    patch = Patch.around(sheet, outline, _MARGIN_UM)
    tone = rng.normal(1.0, 0.07)
    sharpness = rng.uniform(0.06, 0.24)
    seeds = rng.standard_normal((9, 9), np.float32)
    if patch is None:
        return None
    inside = patch.filled(outline, 0.045)
    along, across = _own_coordinates(patch, outline, pose, head.axis)
    depth = along + head.curve * across * across
    solid = inside > 0.5
    if not solid.any():
        return None
    edge = _acrosome_edge(depth[solid], head.acrosome_share)
    acrosome = 1.0 / (1.0 + np.exp((edge - depth) / np.float32(sharpness)))
    # Stain lies thicker at the rim, where the head's surface is seen edge-on, and bluest there and at the base.
    reach = 2 * round(0.35 / patch.step) + 1
    middle = cv2.blur(inside, (reach, reach))
    rim = np.float32(1.12) - np.float32(0.22) * middle
    base = np.clip((-0.45 - along) / 0.7 + np.float32(0.9) * (np.float32(0.95) - middle), 0.0, 1.0)
    texture = cv2.resize(seeds, (patch.shape[1], patch.shape[0]), interpolation=cv2.INTER_CUBIC)
    amount = inside * rim * (np.float32(tone) + np.float32(0.08) * texture)
    vacuole = np.zeros_like(inside)
    for spot in head.vacuoles:
        ring = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
        ellipse = np.column_stack([spot.x + spot.rx * np.cos(ring), spot.y + spot.ry * np.sin(ring)])
        covered = patch.filled(pose.place(ellipse), 0.05) * inside
        amount *= 1.0 - np.float32(spot.depth) * covered
        np.maximum(vacuole, covered, out=vacuole)
    nucleus = amount * (1.0 - acrosome)
    patch.add(sheet, amount * acrosome, palette.acrosome)
    patch.add(sheet, nucleus * (1.0 - base), palette.nucleus)
    patch.add(sheet, nucleus * base, palette.nucleus_base)
    return PaintedHead(patch, outline, solid, solid & (acrosome > 0.5), solid & (vacuole > 0.5))


def _own_coordinates(patch: Patch, outline: Points, pose: Pose, axis: float) -> tuple[Mask, Mask]:
    """Along (base -1, apex 1) and across (flanks ±1) the head, for every sub-pixel of `patch`."""
    angle = pose.angle + (-axis if pose.mirrored else axis)
    c, s = cos(angle), sin(angle)
    forward = outline @ np.array([c, s])
    sideways = outline @ np.array([-s, c])
    rows, columns = patch.shape
    x = patch.x0 * patch.um_per_px + (np.arange(columns, dtype=np.float32) + 0.5) * patch.step
    y = patch.y0 * patch.um_per_px + (np.arange(rows, dtype=np.float32) + 0.5) * patch.step
    return (
        _normalised(x[None, :] * c + y[:, None] * s, forward),
        _normalised(y[:, None] * c - x[None, :] * s, sideways),
    )


def _normalised(values: NDArray[np.float64], extent: NDArray[np.float64]) -> Mask:
    low, high = float(extent.min()), float(extent.max())
    return np.asarray((values - (low + high) / 2) / max((high - low) / 2, 1e-6), np.float32)


def _acrosome_edge(depths: Mask, share: float) -> np.float32:
    """The depth above which lies `share` of the head."""
    if share <= 0.0:
        return np.float32(2.0)
    rank = min(int(len(depths) * (1.0 - share)), len(depths) - 1)
    return np.float32(np.partition(depths, rank)[rank])
