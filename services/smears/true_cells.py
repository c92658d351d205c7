"""Turns what was painted of a cell into its truth: boxes, polygons, sizes and shares."""

from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.smears.cells import CellShape
from services.smears.doubtful import PaintedObject
from services.smears.flagella import Strand
from services.smears.head_shapes import Points
from services.smears.painting import PaintedHead, Patch, Pose
from services.smears.truth import BoxPx, Polygon, TrueCell, TrueObject

_LEAST_VISIBLE: Final = 0.08  # of a head; less of it is nothing that anybody could see


def true_cell(
    number: int,
    cell: CellShape,
    pose: Pose,
    painted: Sequence[PaintedHead],
    shape: tuple[int, int],
    um_per_px: float,
    seen: NDArray[np.bool_] | None,
    kind: str,
) -> TrueCell | None:
    """The truth of a painted cell on a field of `shape` (height, width), or None where nothing of its head is in it."""
    parts: dict[str, list[Polygon]] = {"acrosome": [], "nucleus": [], "vacuole": []}
    visible = acrosome = vacuole = 0.0
    corners: list[Points] = []
    for head in painted:
        shown = np.ones_like(head.inside) if seen is None else _seen_on(head.patch, seen)
        inside = head.inside & shown
        masks = {
            "acrosome": head.acrosome & shown,
            "nucleus": inside & ~head.acrosome,
            "vacuole": head.vacuole & shown,
        }
        for name, mask in masks.items():
            parts[name] += _polygons(mask, head.patch)
        area = head.patch.step**2
        visible += np.count_nonzero(inside) * area
        acrosome += np.count_nonzero(masks["acrosome"]) * area
        vacuole += np.count_nonzero(masks["vacuole"]) * area
        corners += [_on_field(contour, head.patch) for contour in _contours(inside)]
    whole_area = sum(head.area for head in cell.heads)
    if not corners or visible < _LEAST_VISIBLE * whole_area:
        return None
    points = np.concatenate(corners)
    low, high = points.min(axis=0), points.max(axis=0)
    sides = cv2.minAreaRect(cv2.convexHull(points.astype(np.float32)))[1]
    strands = {
        "midpiece": [_ribbon(f.midpiece, pose, um_per_px, shape) for f in cell.flagella],
        "tail": [_ribbon(f.tail, pose, um_per_px, shape) for f in cell.flagella],
    }
    found = {name: tuple(p) for name, p in parts.items() if p}
    found |= {name: kept for name, ribbons in strands.items() if (kept := tuple(r for rs in ribbons for r in rs))}
    everything = np.concatenate([np.asarray(p, np.float64) for polygons in found.values() for p in polygons])
    all_low, all_high = np.minimum(everything.min(axis=0), low), np.maximum(everything.max(axis=0), high)
    return TrueCell(
        id=number,
        class_index=cell.class_index,
        head_box=_box(low, high),
        cell_box=_box(all_low, all_high),
        whole=bool(visible > 0.985 * sum(_painted_area(p) for p in painted)) and not _cut(painted, shape, um_per_px),
        parts=found,
        length_um=round(max(sides) * um_per_px, 3),
        width_um=round(min(sides) * um_per_px, 3),
        area_um2=round(visible, 3),
        acrosome_share=round(acrosome / visible, 4),
        vacuole_share=round(vacuole / visible, 4),
        kind=kind,
    )


def true_object(painted: PaintedObject, shape: tuple[int, int], um_per_px: float) -> TrueObject:
    """The truth of something that is no sperm, on a field of `shape` (height, width)."""
    points = np.concatenate(painted.outlines) / um_per_px
    low, high = points.min(axis=0), points.max(axis=0)
    whole = bool((low > 0).all() and high[0] < shape[1] and high[1] < shape[0])
    return TrueObject(painted.kind, _box(np.maximum(low, 0), np.minimum(high, (shape[1], shape[0]))), whole)


def _painted_area(head: PaintedHead) -> float:
    return float(np.count_nonzero(head.inside)) * head.patch.step**2


def _cut(painted: Sequence[PaintedHead], shape: tuple[int, int], um_per_px: float) -> bool:
    """Whether a head reaches over the border of the field."""
    outline = np.concatenate([head.outline for head in painted]) / um_per_px
    return bool((outline < 0.0).any() or (outline[:, 0] > shape[1]).any() or (outline[:, 1] > shape[0]).any())


def _seen_on(patch: Patch, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    part = seen[patch.y0 : patch.y1, patch.x0 : patch.x1]
    return np.repeat(np.repeat(part, patch.fine, axis=0), patch.fine, axis=1)


def _polygons(mask: NDArray[np.bool_], patch: Patch) -> list[Polygon]:
    """Outer outlines of a fine mask, in field pixels; crumbs are left out."""
    polygons = []
    for contour in _contours(mask):
        if cv2.contourArea(contour) * patch.step**2 < 0.02:
            continue
        simple = np.asarray(cv2.approxPolyDP(contour, 0.7, True)[:, 0], np.float32)
        if len(simple) >= 3:
            polygons.append(_polygon(_on_field(simple, patch)))
    return polygons


def _contours(mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Outer contours `[n, 2]` of a fine mask, through the centres of its outermost sub-pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0].astype(np.float32) for contour in contours]


def _on_field(fine: NDArray[np.floating], patch: Patch) -> Points:
    """Centres of sub-pixels of a patch, in pixels of the field."""
    placed: Points = (fine + 0.5) / patch.fine + (patch.x0, patch.y0)
    return placed


def _ribbon(strand: Strand, pose: Pose, um_per_px: float, shape: tuple[int, int]) -> list[Polygon]:
    """The stretches of a strand that lie in the field, each as a polygon of its two sides."""
    points = pose.place(strand.points) / um_per_px
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1])[:, None], 1e-9)
    aside = np.column_stack([-along[:, 1], along[:, 0]]) * (strand.widths / um_per_px / 2)[:, None]
    inside = np.asarray(((points >= 0) & (points < (shape[1], shape[0]))).all(axis=1))
    return [
        _polygon(np.vstack([(points + aside)[a:b:2], (points - aside)[a:b:2][::-1]]))
        for a, b in _runs(inside)
        if b - a >= 4
    ]


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return ((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _polygon(points: Points) -> Polygon:
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in points)


def _box(low: Points, high: Points) -> BoxPx:
    return round(float(low[0]), 1), round(float(low[1]), 1), round(float(high[0]), 1), round(float(high[1]), 1)
