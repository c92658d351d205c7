"""Is a field good enough to be judged? Focus, exposure, background and stain, each a number with a unit.

Everything is measured at two fixed physical scales, so that a figure means the same at any magnification: edges at
0.09 µm a pixel (three times finer than a microscope resolves), levels and stain at 0.36 µm. The measured channel is the
darker of red and green: every sperm stain absorbs one of them (violet and pink: green; blue and blue-green: red).
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from services.imaging.planes import Planes, percentile_of
from services.imaging.types import RGB, FieldQuality, Microns, QualityFlag, SetAside, UmPerPx

EDGE_SCALE_UM: Final = 0.09
LEVEL_SCALE_UM: Final = 0.36

BLACK_PCT: Final = 8.0
"""Background below this is black: 20 grey levels are left for everything that is darker than the background."""
WHITE_PCT: Final = 95.0
"""A field whose darkest 0.1 % is above this shows nothing."""
DARK_PCT: Final = 50.0
"""Background below this: half of the camera's range is unused (128 real fields: 84 to 92 %)."""
BRIGHT_PCT: Final = 97.0
"""Background above this: the next step is clipping, and tails and acrosomes go first."""
CLIPPED_PCT: Final = 1.0
"""More pixels at the ends of the scale than this (real fields: under 0.1 %)."""
UNEVEN_PCT: Final = 25.0
"""A background that falls by this is 0.12 in optical density: as much as the palest stained object (`OBJECT_OD`)."""
OBJECT_OD: Final = 0.15
"""Stained objects are denser than this; haze, drying marks and tails are mostly paler."""
OBJECT_WIDTH_UM: Final = 1.1
"""Stained objects are wider than this: bacteria and tails are narrower, the narrowest heads are about 1.5 µm."""
NO_OBJECT_UM2: Final = 3.0
"""Less stained area than this in a whole field is not even one head (a small one has 5 µm²)."""
WEAK_STAIN_OD: Final = 0.4
"""Below this, acrosome and nucleus differ by little more than the noise."""
SOFT_FOCUS_UM: Final = 1.0
"""Edges wider than this blur vacuoles (0.5 to 1 µm) away; real fields: 0.4 to 0.7 µm; 0.2 µm of blur makes 0.8."""
OUT_OF_FOCUS_UM: Final = 1.5
"""Edges wider than this leave no plateau in a head 2.5 to 3.2 µm wide: its outline is a guess (blur of 0.65 µm)."""

_CONTRAST_WINDOW_UM: Final = 3.2  # wide enough to hold the whole edge of a head at the focus limits
_LEAST_CONTRAST: Final = 0.08  # of the background: below it, noise and haze have edges too
_UNLIT: Final = 0.3  # of the background, over a whole block: no stain covers so much so densely
_TILE: Final = 4  # blocks each way: slopes are measured tile by tile, where an edge is
_NOISE_OF: Final = 32  # one tile of so many tells the noise
_STEEP: Final = 0.4  # of the strong edges: which of them are sharp is looked for among the steepest so many
_BLOCK_UM: Final = 8.0  # a block of background holds a head and still shows background in its brighter quarter


def measure_quality(pixels: RGB, um_per_px: UmPerPx, planes: Planes | None = None) -> FieldQuality:
    """Measure a field `[H, W, 3]` of `um_per_px` µm a pixel; `planes` are its own, where there are any.

    `unusable` is `field_black`, `field_white` or `field_out_of_focus`; a field without a stained object is usable and
    has the flag `no_stained_objects`.
    """
    planes = planes or Planes(pixels)
    edges, edge_um = planes.shrunk(EDGE_SCALE_UM / um_per_px), max(um_per_px, EDGE_SCALE_UM)
    levels, level_um = edges.shrunk(LEVEL_SCALE_UM / edge_um), max(edge_um, LEVEL_SCALE_UM)
    absorbing = levels.absorbing
    blocks = _background_blocks(absorbing, level_um)
    # Not the median: a vignette may leave less than half of a field lit.
    low, background, high = np.percentile(blocks, (5, 75, 95)).tolist()
    local = cv2.resize(blocks, absorbing.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    lit = _lit(absorbing, background, level_um)

    background_pct = _pct(background)
    clipped_pct = _clipped_pct(planes, lit)
    unevenness_pct = 100 * (high - low) / max(background, 1.0)
    area_um2, stain_od = _stain(absorbing, local, lit, level_um)
    focus = _edge_width(edges.pixels, absorbing, lit, background, edge_um, level_um)

    unusable = None
    if background_pct < BLACK_PCT:
        unusable = SetAside.BLACK
    elif _pct(percentile_of(absorbing, 0.1)) > WHITE_PCT:
        unusable = SetAside.WHITE
    elif focus is not None and focus > OUT_OF_FOCUS_UM:
        unusable = SetAside.OUT_OF_FOCUS
    warnings = {
        QualityFlag.DARK: background_pct < DARK_PCT,
        QualityFlag.BRIGHT: background_pct > BRIGHT_PCT,
        QualityFlag.CLIPPED: clipped_pct > CLIPPED_PCT,
        QualityFlag.UNEVEN: unevenness_pct > UNEVEN_PCT,
        QualityFlag.SOFT_FOCUS: focus is not None and focus > SOFT_FOCUS_UM,
        QualityFlag.NO_STAINED_OBJECTS: area_um2 < NO_OBJECT_UM2,
        QualityFlag.WEAK_STAIN: area_um2 >= NO_OBJECT_UM2 and stain_od < WEAK_STAIN_OD,
    }
    return FieldQuality(
        focus=None if focus is None else Microns(focus),
        exposure_pct=_pct(float(cv2.cvtColor(levels.pixels, cv2.COLOR_RGB2GRAY).mean())),
        clipped_pct=clipped_pct,
        background_pct=background_pct,
        unevenness_pct=unevenness_pct,
        stain_od=stain_od if area_um2 >= NO_OBJECT_UM2 else None,
        flags=tuple(flag for flag, raised in warnings.items() if raised),
        unusable=unusable,
    )


def _pct(level: float) -> float:
    return level / 255 * 100


def _clipped_pct(planes: Planes, lit: NDArray[np.bool_]) -> float:
    """Pixels with a channel at 255, or all at 0 where light falls. One channel at 0 is normal in a dense nucleus."""
    height, width = planes.pixels.shape[:2]
    size = -(-width // 4), -(-height // 4)
    red, green, blue = cv2.split(cv2.resize(planes.pixels, size, interpolation=cv2.INTER_NEAREST))
    brightest = cv2.max(cv2.max(red, green), blue)
    near = cv2.resize(lit.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return float(100 * ((brightest == 255) | ((brightest == 0) & (near > 0))).mean())


def _lit(absorbing: NDArray[np.uint8], background: float, um: float) -> NDArray[np.bool_]:
    """All but large dark areas and what is near them: the rim of an eyepiece is a sharp edge, and no cell's."""
    block, reach = (max(1, round(length / um)) | 1 for length in (_BLOCK_UM, 2 * _CONTRAST_WINDOW_UM))
    dark = (absorbing < _UNLIT * background).astype(np.uint8)
    framed = cv2.copyMakeBorder(dark, block, block, block, block, cv2.BORDER_CONSTANT, value=1)  # it goes on outside
    large = cv2.morphologyEx(framed, cv2.MORPH_OPEN, np.ones((block, block), np.uint8))
    unlit = cv2.dilate(large[block:-block, block:-block], np.ones((reach, reach), np.uint8))
    lit: NDArray[np.bool_] = np.asarray(unlit) == 0
    return lit


def _background_blocks(absorbing: NDArray[np.uint8], um: float) -> NDArray[np.float32]:
    """Background level `[rows, columns]` of blocks: the brighter quarter of each, freed of single dark blocks."""
    absorbing = absorbing[::2, ::2]  # enough to tell a quarter from the rest
    height, width = absorbing.shape
    rows, columns = (max(1, round(2 * n * um / _BLOCK_UM)) for n in (height, width))
    tall, wide = height // rows, width // columns
    cut = absorbing[: tall * rows, : wide * columns].reshape(rows, tall, columns, wide)
    rank = round(0.75 * (tall * wide - 1))
    blocks = np.partition(cut.transpose(0, 2, 1, 3).reshape(rows, columns, -1), rank, axis=2)[:, :, rank]
    return cv2.medianBlur(blocks.astype(np.float32), 3).astype(np.float32, copy=False)


def _stain(
    absorbing: NDArray[np.uint8], background: NDArray[np.float32], lit: NDArray[np.bool_], um: float
) -> tuple[float, float]:
    """Area of stained objects, µm², and the optical density that their denser quarter reaches."""
    least = np.float32(10**-OBJECT_OD) * np.maximum(background, 1.0)
    stained = ((np.maximum(absorbing, 1) < least) & lit).view(np.uint8)
    width = max(1, round(OBJECT_WIDTH_UM / um))
    opened = cv2.morphologyEx(stained, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    objects = np.asarray(opened) > 0
    through = np.maximum(absorbing[objects], 1) / np.maximum(background[objects], 1.0)
    if not through.size:
        return 0.0, 0.0
    return float(through.size * um**2), float(-np.log10(np.percentile(through, 25)))


def _edge_width(
    pixels: RGB,
    levels: NDArray[np.uint8],
    lit: NDArray[np.bool_],
    background: float,
    um: float,
    level_um: float,
) -> float | None:
    """Width of the sharpest tenth of the strong edges, µm: local contrast over the steepest gradient in it.

    `pixels` are at `um`, where slopes are measured, `levels` and `lit` at `level_um`. A step blurred by a Gaussian of σ
    has a width of √(2π)·σ by this measure. `None` where nothing has contrast.
    """
    if not lit.any():
        return None
    contrast = _range(levels, max(3, round(_CONTRAST_WINDOW_UM / level_um) | 1))
    highest = percentile_of(contrast, 99.5, lit)
    strong = lit & (contrast > max(_LEAST_CONTRAST * background, 0.5 * highest))
    if not strong.any():
        return None
    # The sharpest are among those that are steep at the coarser scale already.
    steep = _range(levels, 3)[strong] / contrast[strong]
    strong[strong] = steep >= _quantile(steep, 1 - _STEEP)
    pool = -(-pixels.shape[0] // lit.shape[0])
    wanted = _in_blocks(strong, (pixels.shape[0] // pool, pixels.shape[1] // pool))
    blocks, sampled = _steepest(pixels, pool, wanted)
    size = lit.shape[::-1]
    steepest = _of_cells(blocks, size)
    # Noise is steep everywhere: what the background has is taken off (in squares, as noise adds to a slope).
    glass = steepest[_of_cells(sampled, size).view(np.bool_) & lit]
    noise = _quantile(glass, 0.5) if glass.size else 0.0
    slopes = np.sqrt(np.maximum(steepest[strong] - noise, 1e-6)) / (8 * um)
    return _quantile(contrast[strong] / slopes, 0.1 / _STEEP)


def _quantile(values: NDArray[Any], share: float) -> float:
    """One of `values` `[n]`, without NumPy's long way to what lies between two."""
    rank = round(share * (values.size - 1))
    return float(np.partition(values, rank)[rank])


def _range(levels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Highest less lowest level in a square of `side` pixels around each."""
    window = np.ones((side, side), np.uint8)
    return np.asarray(cv2.subtract(cv2.dilate(levels, window), cv2.erode(levels, window)), np.uint8)


def _of_cells(blocks: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The nearest block of each cell of a grid of `size`, which is nearly as fine."""
    return blocks if blocks.shape[::-1] == size else cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)


def _in_blocks(cells: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """1 for those blocks of a grid of `shape` that are the nearest of `cells`."""
    if shape == cells.shape:
        return cells.view(np.uint8)
    blocks = np.zeros(shape, np.uint8)
    rows, columns = np.nonzero(cells)
    blocks[rows * shape[0] // cells.shape[0], columns * shape[1] // cells.shape[1]] = 1
    return blocks


def _steepest(pixels: RGB, pool: int, wanted: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The largest square of the Sobel gradient in blocks of `pool` × `pool` pixels, and which are a sample of all.

    Of the darker of red and green, freed of grain. Both are `[H // pool, W // pool]`, as `wanted` is; of a block
    neither wanted nor of the sample it is 0. Edges are on a tenth of a field: only the tiles that they cross are looked
    at, side by side as one long strip.
    """
    side, (rows, columns) = _TILE * pool, wanted.shape
    down, right = -(-rows // _TILE), -(-columns // _TILE)
    crossed = cv2.dilate(wanted, np.ones((_TILE, _TILE), np.uint8), anchor=(0, 0))[::_TILE, ::_TILE]
    sampled = (5 * np.arange(down)[:, None] + np.arange(right)) % _NOISE_OF == 0
    tiles = np.asarray(crossed, np.bool_) | sampled
    rest = [max(0, max(2, count) * side - length) for count, length in zip((down, right), pixels.shape, strict=False)]
    if any(rest):
        pixels = cv2.copyMakeBorder(pixels, 0, rest[0], 0, rest[1], cv2.BORDER_REFLECT_101).astype(np.uint8, copy=False)
    # Smoothing and a gradient need a pixel around what they are of, each; at the border a tile lies so much further in.
    wide = side + 4
    starts = (
        np.clip(side * at - 2, 0, length - wide) for at, length in zip(np.nonzero(tiles), pixels.shape, strict=False)
    )
    cut = sliding_window_view(pixels, (wide, wide), (0, 1))[*starts]
    red, green, _ = cv2.split(np.ascontiguousarray(cut.transpose(2, 0, 3, 1)).reshape(wide, -1, 3))
    strip = cv2.GaussianBlur(cv2.min(red, green), (3, 3), 0)
    across, along = (cv2.multiply(slope, slope, dtype=cv2.CV_32F) for slope in cv2.spatialGradient(strip))
    squares = cv2.add(across, along)[2:-2]
    of_rows = np.maximum.reduce(squares.reshape(_TILE, pool, -1), axis=1).reshape(_TILE, len(cut), wide)
    of_blocks = np.maximum.reduce([of_rows[:, :, 2 + shift : side + 2 : pool] for shift in range(pool)])
    steepest, sample = (
        np.zeros((down, _TILE, right, _TILE), np.float32),
        np.zeros((down, _TILE, right, _TILE), np.uint8),
    )
    steepest.transpose(0, 2, 1, 3)[tiles] = of_blocks.transpose(1, 0, 2)
    sample.transpose(0, 2, 1, 3)[sampled] = 1
    whole = down * _TILE, right * _TILE
    return steepest.reshape(whole)[:rows, :columns], sample.reshape(whole)[:rows, :columns]
