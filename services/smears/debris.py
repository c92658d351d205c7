"""What lies on a smear besides sperm: bacteria, white and round cells, droplets, granules of stain, loose tails."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.smears.flagella import Strand
from services.smears.head_shapes import Points
from services.smears.painting import Patch, Pose, Sheet, paint_strand
from services.smears.stains import Density, Palette

_RING: Final = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)


def paint_plasma(rng: np.random.Generator, sheet: Sheet, palette: Palette, amount: float) -> None:
    """The stained film of seminal plasma: clouds, a fine grain, and faint smudges. `amount` 1 is usual."""
    height, width = sheet.density.shape[:2]
    extent = width * sheet.um_per_px, height * sheet.um_per_px
    size = max(round(extent[0] / 0.3), 2), max(round(extent[1] / 0.3), 2)
    film = np.full((size[1], size[0]), 0.25, np.float32)
    for grain_um, weight in ((30.0, 0.12), (2.2, 0.04), (0.45, 0.07)):
        grain = rng.standard_normal((max(int(extent[1] / grain_um), 2), max(int(extent[0] / grain_um), 2)), np.float32)
        film += np.float32(weight) * cv2.resize(grain, size, interpolation=cv2.INTER_CUBIC)
    np.maximum(film, 0.0, out=film)
    # Only the thickest grains stand out of a film: without this it would look like cloud instead of like dust.
    film *= np.float32(0.6) + film * film * np.float32(2.5)
    film *= np.float32(amount)
    full = cv2.resize(film, (width, height), interpolation=cv2.INTER_LINEAR)
    sheet.density[:] += full[..., None] * np.asarray(palette.plasma, np.float32)


def paint_debris(rng: np.random.Generator, sheet: Sheet, palette: Palette, amount: float) -> int:
    """Scatter debris over a sheet; `amount` 1 is usual. Returns how many things were painted."""
    height, width = sheet.density.shape[:2]
    area = height * width * sheet.um_per_px**2
    size = np.array([width, height]) * sheet.um_per_px
    painted = 0
    for paint, per_10000_um2 in _KINDS:
        for _ in range(int(rng.poisson(per_10000_um2 * amount * area / 10_000))):
            x, y = rng.uniform(0.0, 1.0, 2) * size
            paint(rng, sheet, palette, float(x), float(y))
            painted += 1
    return painted


def paint_bacteria(rng: np.random.Generator, sheet: Sheet, palette: Palette, count: int) -> int:
    """Rods of 1–2.5 µm, alone, in pairs and in short chains, in a few clusters."""
    height, width = sheet.density.shape[:2]
    size = np.array([width, height]) * sheet.um_per_px
    centres = rng.uniform(0.0, 1.0, (max(count // 6, 1), 2)) * size
    painted = 0
    while painted < count:
        spread = rng.normal(0.0, 6.0, 2) if rng.random() < 0.7 else rng.normal(0.0, 40.0, 2)
        x, y = centres[rng.integers(len(centres))] + spread
        angle = rng.uniform(0.0, 2.0 * np.pi)
        for _ in range(int(rng.choice([1, 2, 2, 3, 5]))):
            length = rng.uniform(0.9, 1.6)
            step = length * np.array([np.cos(angle), np.sin(angle)])
            line = np.linspace(0.0, 1.0, 5)[:, None] * step + (x, y)
            rod = Strand(line, np.full(5, rng.uniform(0.45, 0.7)), np.full(5, rng.uniform(0.7, 1.2)), angle)
            paint_strand(sheet, rod, Pose(0.0, 0.0, 0.0), palette.bacteria)
            x, y = line[-1] + step * rng.uniform(0.15, 0.3)
            angle += rng.normal(0.0, 0.35)
            painted += 1
    return painted


def paint_cocci(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> list[Points]:
    """A clump of four to fourteen cocci of 0.5 to 0.9 µm. Returns their outlines."""
    tone, radius = rng.uniform(0.9, 1.5), rng.uniform(0.25, 0.45)
    places = [np.array([x, y])]
    for _ in range(int(rng.integers(3, 14))):
        beside, way = places[rng.integers(len(places))], rng.uniform(0.0, 2.0 * np.pi)
        place = beside + radius * rng.uniform(1.5, 2.0) * np.array([np.cos(way), np.sin(way)])
        if min(float(np.hypot(*(place - other))) for other in places) > 1.3 * radius:
            places.append(place)
    outlines = [_blob(rng, float(px), float(py), radius, 0.03) for px, py in places]
    for outline in outlines:
        _add_blob(sheet, outline, palette.bacteria, tone, 0.05, None)
    return outlines


def paint_dark_body(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> list[Points]:
    """A round, evenly dark body of 1.2 to 3.2 µm: a pyknotic nucleus, a drop of stain."""
    density = palette.nucleus if rng.random() < 0.5 else palette.bacteria
    outline = _blob(rng, x, y, rng.uniform(0.6, 1.6), 0.05)
    _add_blob(sheet, outline, density, rng.uniform(0.6, 1.1), 0.06, None)
    return [outline]


def _blob(rng: np.random.Generator, x: float, y: float, radius: float, rough: float) -> Points:
    """An irregular closed outline around (x, y), µm."""
    reach = np.ones_like(_RING)
    for order in (2, 3, 4, 6):
        reach += rng.normal(0.0, rough / order**0.5) * np.cos(order * _RING + rng.uniform(0.0, 2.0 * np.pi))
    reach = radius * np.clip(reach, 0.35, 1.8)
    return np.column_stack([x + reach * np.cos(_RING), y + reach * np.sin(_RING)])


def _add_blob(
    sheet: Sheet, outline: Points, density: Density, factor: float, soft_um: float, texture: NDArray[np.float32] | None
) -> None:
    patch = Patch.around(sheet, outline, 3 * soft_um + 0.2, coarse=soft_um >= 0.12)
    if patch is None:
        return
    cover = patch.filled(outline, soft_um)
    if texture is not None:
        rows, columns = patch.shape
        cover *= np.clip(1.0 + cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_CUBIC), 0.0, 2.5)
    patch.add(sheet, cover * np.float32(factor), density)


def _speck(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    """Fine dirt, mostly faint and hardly larger than what the objective resolves."""
    radius = float(np.clip(rng.gamma(2.0, 0.13), 0.08, 0.8))
    density = palette.cytoplasm if rng.random() < 0.92 else palette.granule
    texture = rng.standard_normal((4, 4), np.float32) * np.float32(0.35) if radius > 0.35 else None
    outline = _blob(rng, x, y, radius, 0.18)
    _add_blob(sheet, outline, density, rng.uniform(0.1, 0.8) ** 1.3 * 1.1, rng.uniform(0.07, 0.11), texture)


def _droplet(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    """A round blue droplet of cytoplasm, rather even."""
    radius = rng.uniform(0.4, 1.1)
    texture = rng.standard_normal((5, 5), np.float32) * np.float32(0.12)
    _add_blob(sheet, _blob(rng, x, y, radius, 0.04), palette.cytoplasm, rng.uniform(0.5, 1.7), 0.11, texture)


def _shred(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    """A torn scrap, pale and textured."""
    texture = rng.standard_normal((5, 5), np.float32) * np.float32(0.6)
    outline = _blob(rng, x, y, rng.uniform(0.7, 2.2), 0.3)
    _add_blob(sheet, outline, palette.cytoplasm, rng.uniform(0.25, 0.8), 0.15, texture)


def _granules(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    """A sprinkle of precipitated stain."""
    for _ in range(int(rng.integers(4, 22))):
        dx, dy = rng.normal(0.0, 1.8, 2)
        outline = _blob(rng, x + dx, y + dy, rng.uniform(0.12, 0.4), 0.25)
        _add_blob(sheet, outline, palette.granule, rng.uniform(0.4, 1.5), 0.06, None)


def _smudge(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    texture = rng.standard_normal((8, 8), np.float32) * np.float32(0.5)
    outline = _blob(rng, x, y, rng.uniform(3.0, 9.0), 0.25)
    _add_blob(sheet, outline, palette.plasma, rng.uniform(0.4, 1.4), 0.9, texture)


def _loose_tail(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> None:
    count = int(rng.integers(40, 160))
    headings = (
        rng.uniform(0.0, 2.0 * np.pi)
        + np.cumsum(rng.normal(0.0, 0.06, count))
        + rng.normal(0.0, 0.01) * np.arange(count)
    )
    line = np.cumsum(0.25 * np.column_stack([np.cos(headings), np.sin(headings)]), axis=0) + np.array([x, y])
    strand = Strand(
        line, np.full(count, rng.uniform(0.25, 0.4)), np.full(count, rng.uniform(0.3, 0.9)), float(headings[-1])
    )
    paint_strand(sheet, strand, Pose(0.0, 0.0, 0.0), palette.tail)


def _dust_ring(rng: np.random.Generator, sheet: Sheet, _palette: Palette, x: float, y: float) -> None:
    """The diffraction ring of dust out of focus."""
    radius = rng.uniform(0.35, 0.7)
    for reach, factor in ((radius, 0.05), (0.72 * radius, -0.06)):
        _add_blob(sheet, _blob(rng, x, y, reach, 0.01), (1.0, 1.0, 1.0), factor, 0.08, None)


def paint_white_cell(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> list[Points]:
    """A leucocyte of 8–12 µm with a lobed nucleus. Returns its outline."""
    radius = rng.uniform(4.0, 6.0)
    texture = rng.standard_normal((9, 9), np.float32) * np.float32(0.25)
    whole = _blob(rng, x, y, radius, 0.06)
    _add_blob(sheet, whole, palette.cytoplasm, rng.uniform(0.5, 1.0), 0.25, texture)
    start = rng.uniform(0.0, 2.0 * np.pi)
    for lobe in range(int(rng.integers(2, 5))):
        angle = start + 1.25 * lobe
        at = 0.42 * radius * np.array([np.cos(angle), np.sin(angle)]) + (x, y)
        outline = _blob(rng, float(at[0]), float(at[1]), rng.uniform(0.27, 0.38) * radius, 0.1)
        _add_blob(sheet, outline, palette.nucleus, rng.uniform(0.45, 0.7), 0.16, texture)
    return [whole]


def paint_round_cell(rng: np.random.Generator, sheet: Sheet, palette: Palette, x: float, y: float) -> list[Points]:
    """An immature germ cell of 7–10 µm: a large round nucleus in little cytoplasm. Returns its outline."""
    radius = rng.uniform(3.5, 5.0)
    texture = rng.standard_normal((10, 10), np.float32) * np.float32(0.3)
    whole = _blob(rng, x, y, radius, 0.05)
    _add_blob(sheet, whole, palette.cytoplasm, rng.uniform(0.6, 1.2), 0.2, None)
    dx, dy = rng.normal(0.0, 0.12 * radius, 2)
    outline = _blob(rng, x + dx, y + dy, 0.66 * radius, 0.05)
    _add_blob(sheet, outline, palette.nucleus, rng.uniform(0.35, 0.6), 0.15, texture)
    return [whole]


_KINDS: Final = (
    (_speck, 110.0),
    (_droplet, 4.0),
    (_shred, 7.0),
    (_granules, 1.0),
    (_smudge, 2.0),
    (_loose_tail, 2.5),
    (_dust_ring, 4.0),
    (paint_white_cell, 0.10),
    (paint_round_cell, 0.07),
)
