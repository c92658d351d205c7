"""A stained field with known truth, and single-cell crops that look as if they had been cut from one."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from services.smears.cells import CellShape, shape_cell
from services.smears.debris import paint_bacteria, paint_debris, paint_plasma
from services.smears.doubtful import Doubtful, PaintedObject, paint_doubtful
from services.smears.optics import RGB, Fault, photograph, usual_camera
from services.smears.painting import PaintedHead, Pose, Sheet, paint_cell
from services.smears.stains import PALETTES, Palette, Stain
from services.smears.true_cells import true_cell, true_object
from services.smears.truth import FieldTruth
from services.taxonomy import CLASSES, PUBLISHED_MIX

_APART_UM: Final = 7.5
_HEAD_ROOM_UM: Final = 3.2  # a head nearer to the border is mostly cut by it, and never classified


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What to draw. `class_weights` has 18 weights; `debris` 1 is usual; `touching` is the share of cells that touch.

    `classes` names the class index of every cell and leaves nothing to `cells` and `class_weights`.
    `doubtful` is drawn besides, each thing once.
    `palette` is the stain as the field's slide shows it (None: a slide of its own); `blur_um` the sigma of the blur
    (None: a well focused field).
    """

    width_px: int = 1280
    height_px: int = 1024
    um_per_px: float = 0.09
    stain: Stain = Stain.DIFF_QUIK
    cells: int = 12
    class_weights: tuple[float, ...] = tuple(float(n) for n in PUBLISHED_MIX)
    classes: tuple[int, ...] | None = None
    palette: Palette | None = None
    debris: float = 1.0
    bacteria: int = 0
    touching: float = 0.06
    blur_um: float | None = None
    fault: Fault = Fault.NONE
    doubtful: tuple[Doubtful, ...] = ()


@dataclass(frozen=True, slots=True)
class SmearField:
    """A drawn field: `pixels` `[H, W, 3]` RGB, and what is true of it."""

    pixels: RGB
    truth: FieldTruth


def draw_field(rng: np.random.Generator, spec: FieldSpec) -> SmearField:
    """Draw one field. The same generator state and spec give the same pixels, on the same library versions."""
    palette = spec.palette or PALETTES[spec.stain].of_slide(rng)
    sheet = Sheet.empty(spec.width_px, spec.height_px, spec.um_per_px)
    paint_plasma(rng, sheet, palette, rng.uniform(0.4, 1.6))
    debris = paint_debris(rng, sheet, palette, spec.debris * rng.uniform(0.6, 1.6))
    if spec.bacteria:
        debris += paint_bacteria(rng, sheet, palette, spec.bacteria)
    classes = _classes(rng, spec)
    painted: list[tuple[CellShape, Pose, tuple[PaintedHead, ...], str]] = []
    poses = _poses(rng, spec, len(classes))
    for class_index, pose in zip(classes, poses, strict=True):
        cell = shape_cell(rng, class_index)
        painted.append((cell, pose, paint_cell(rng, sheet, cell, pose, palette), "usual"))
    others: list[PaintedObject] = []
    for kind in spec.doubtful:
        x, y = _free_place(rng, poses, spec.width_px * spec.um_per_px, spec.height_px * spec.um_per_px)
        pose = Pose(x, y, float(rng.uniform(-np.pi, np.pi)), bool(rng.random() < 0.5))
        poses.append(pose)
        cells_of_it, no_cells = paint_doubtful(rng, sheet, palette, kind, pose)
        painted += [(item.shape, item.pose, item.heads, item.kind) for item in cells_of_it]
        others += no_cells
    camera = usual_camera(rng, spec.blur_um, spec.fault)
    pixels, seen = photograph(rng, sheet, palette.glass, camera)
    shape = (spec.height_px, spec.width_px)
    found = (
        true_cell(number, cell, pose, heads, shape, spec.um_per_px, seen, kind)
        for number, (cell, pose, heads, kind) in enumerate(painted, start=1)
        if heads
    )
    cells = tuple(cell for cell in found if cell is not None)
    truth = FieldTruth(
        spec.width_px,
        spec.height_px,
        spec.um_per_px,
        spec.stain,
        spec.fault,
        camera.blur_um,
        debris,
        cells,
        tuple(true_object(item, shape, spec.um_per_px) for item in others),
    )
    return SmearField(pixels, truth)


def _classes(rng: np.random.Generator, spec: FieldSpec) -> tuple[int, ...]:
    if spec.classes is not None:
        return spec.classes
    weights = np.asarray(spec.class_weights, np.float64)
    return tuple(int(i) for i in rng.choice(len(CLASSES), size=spec.cells, p=weights / weights.sum()))


def _poses(rng: np.random.Generator, spec: FieldSpec, count: int) -> list[Pose]:
    """Where cells lie: heads apart from each other, but for the share that touches another."""
    width, height = spec.width_px * spec.um_per_px, spec.height_px * spec.um_per_px
    poses: list[Pose] = []
    for _ in range(count):
        angle, mirrored = rng.uniform(-np.pi, np.pi), bool(rng.random() < 0.5)
        if poses and rng.random() < spec.touching:
            other = poses[rng.integers(len(poses))]
            way, reach = rng.uniform(-np.pi, np.pi), rng.uniform(2.6, 3.6)
            x, y = other.x + reach * np.cos(way), other.y + reach * np.sin(way)
        else:
            x, y = _free_place(rng, poses, width, height)
        poses.append(Pose(float(x), float(y), float(angle), mirrored))
    return poses


def _free_place(rng: np.random.Generator, poses: list[Pose], width: float, height: float) -> tuple[float, float]:
    """A place away from all others; in a crowded field the loneliest of twenty tried."""
    best, best_apart = (0.0, 0.0), -1.0
    for _ in range(20):
        x, y = rng.uniform(-1.0, width + 1.0), rng.uniform(-1.0, height + 1.0)
        apart = min((float(np.hypot(x - p.x, y - p.y)) for p in poses), default=np.inf)
        if apart >= _APART_UM:
            return x, y
        if apart > best_apart:
            best, best_apart = (x, y), apart
    return best


def draw_cell_crop(
    rng: np.random.Generator,
    class_index: int,
    *,
    stain: Stain = Stain.DIFF_QUIK,
    crop_um: float = 24.0,
    size_px: int = 192,
    blur_um: float | None = None,
    um_per_px: float = 0.09,
    palette: Palette | None = None,
    jitter_um: float = 0.25,
    density: float = 12 / 10_600,
    jpeg_quality: int | None = 92,
    field_um: tuple[float, float] | None = (115.0, 92.0),
) -> RGB:
    """A crop `[size_px, size_px, 3]` of one cell of a class, its head's box in the middle but for `jitter_um`.

    It is drawn as a small field of `um_per_px` with debris and `density` neighbours a µm², stored as JPEG and then
    brought to the crop's size, as a crop of a real field would be. `field_um` is the size of the field that it stands
    for, anywhere in which the cell may lie: what is beyond its border is filled with background, as the service does
    (None: the cell lies far from any border).
    """
    palette = palette or PALETTES[stain].of_slide(rng)
    side = int(np.ceil(crop_um / um_per_px))
    sheet = Sheet.empty(side, side, um_per_px)
    paint_plasma(rng, sheet, palette, rng.uniform(0.4, 1.6))
    paint_debris(rng, sheet, palette, rng.uniform(0.6, 1.6))
    if rng.random() < 0.1:
        paint_bacteria(rng, sheet, palette, int(rng.integers(1, 8)))
    cell = shape_cell(rng, class_index)
    pose = _centred(rng, cell, side * um_per_px / 2, jitter_um)
    paint_cell(rng, sheet, cell, pose, palette)
    _paint_neighbours(rng, sheet, palette, pose, density)
    pixels, _ = photograph(rng, sheet, palette.glass, usual_camera(rng, blur_um))
    if jpeg_quality is not None:
        _, stored = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        pixels = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    interpolation = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
    crop = np.array(cv2.resize(pixels, (size_px, size_px), interpolation=interpolation), np.uint8)
    if field_um is not None:
        _fill_beyond_border(rng, crop, field_um, crop_um)
    return crop


def _fill_beyond_border(rng: np.random.Generator, crop: RGB, field_um: tuple[float, float], crop_um: float) -> None:
    """Put the crop's cell anywhere in a field, and background where the crop then reaches over the field's border."""
    size = crop.shape[0]
    glass = np.median(crop.reshape(-1, 3)[::7], axis=0)
    for axis, extent in enumerate(field_um):
        at = rng.uniform(_HEAD_ROOM_UM, extent - _HEAD_ROOM_UM)
        before = round(max(crop_um / 2 - at, 0.0) / crop_um * size)
        after = round(max(crop_um / 2 - (extent - at), 0.0) / crop_um * size)
        along = crop.swapaxes(0, 1) if axis == 0 else crop
        along[:before] = glass
        along[size - after :] = glass


def _centred(rng: np.random.Generator, cell: CellShape, middle: float, jitter_um: float) -> Pose:
    """A pose that brings the box of the cell's heads to the middle of the crop, as a detector would."""
    turned = Pose(0.0, 0.0, float(rng.uniform(-np.pi, np.pi)), bool(rng.random() < 0.5))
    outline = turned.place(np.concatenate([h.outline for h in cell.heads]))
    x, y = middle - (outline.min(axis=0) + outline.max(axis=0)) / 2 + rng.normal(0.0, jitter_um / 2, 2)
    return Pose(float(x), float(y), turned.angle, turned.mirrored)


def _paint_neighbours(rng: np.random.Generator, sheet: Sheet, palette: Palette, own: Pose, density: float) -> None:
    """Other cells of the field: those whose heads or tails may reach into the crop."""
    reach = sheet.density.shape[0] * sheet.um_per_px / 2 + 22.0
    for _ in range(int(rng.poisson(density * (2 * reach) ** 2))):
        dx, dy = rng.uniform(-reach, reach, 2)
        pose = Pose(own.x + float(dx), own.y + float(dy), float(rng.uniform(-np.pi, np.pi)))
        away = float(np.hypot(dx, dy))
        if away < _APART_UM:
            continue
        # Past a cell that lies beyond the crop only its tail can reach in, and not where it points elsewhere.
        towards_tail = (np.cos(pose.angle) * dx + np.sin(pose.angle) * dy) / away
        if away < reach - 22.0 + 8.0 or towards_tail > 0.75:
            paint_cell(rng, sheet, shape_cell(rng, int(rng.integers(len(CLASSES)))), pose, palette)
