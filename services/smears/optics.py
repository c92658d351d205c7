"""From optical density to the picture that a camera delivers: light, lens, sensor."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.smears.painting import Sheet

RGB = NDArray[np.uint8]
Float = NDArray[np.floating]

SHARP_UM: Final = 0.09
"""Blur of a well focused oil-immersion objective: the Gaussian sigma of a point, µm."""


_TILE: Final = 512


class Fault(StrEnum):
    """What can be wrong with a field as a whole."""

    NONE = "none"
    DEFOCUS = "defocus"
    DARK = "dark"
    BRIGHT = "bright"
    UNEVEN = "uneven"
    VIGNETTE = "vignette"


@dataclass(frozen=True, slots=True)
class Camera:
    """How a field is seen. `blur_um` is the sigma of the blur; `noise` that of the sensor, in grey levels.

    `sharpening` is the camera's own (it rings dark things with light); `fringe_um` how far red and blue fall apart.
    """

    blur_um: float = SHARP_UM
    noise: float = 1.2
    sharpening: float = 0.35
    fringe_um: float = 0.06
    fault: Fault = Fault.NONE


def usual_camera(rng: np.random.Generator, blur_um: float | None = None, fault: Fault = Fault.NONE) -> Camera:
    """A camera and a focus as they come; `blur_um` sets the blur, a defocus fault adds to it."""
    blur = float(np.clip(rng.normal(SHARP_UM, 0.02), 0.05, 0.16)) if blur_um is None else blur_um
    if fault is Fault.DEFOCUS:
        blur += rng.uniform(0.5, 0.9)
    return Camera(blur, rng.uniform(0.5, 1.4), rng.uniform(0.2, 0.9), rng.uniform(0.0, 0.09), fault)


def photograph(
    rng: np.random.Generator, sheet: Sheet, glass: tuple[float, float, float], camera: Camera
) -> tuple[RGB, NDArray[np.bool_] | None]:
    """The picture `[H, W, 3]` of a sheet on glass of the given colour, and the mask of what is seen (None: all)."""
    light: Float = np.asarray(cv2.exp(np.negative(sheet.density)))
    light *= np.asarray(glass, np.float32)
    sigma = camera.blur_um / sheet.um_per_px
    if sigma > 0.25:
        light = _blurred(light, sigma)
    if camera.sharpening > 0:
        around = _blurred(light, max(0.22, 1.6 * camera.blur_um) / sheet.um_per_px)
        # Stronger in red than in blue: the halo of an oil-immersion objective is warm.
        light += (light - around) * (np.array([1.3, 0.9, 0.6], np.float32) * np.float32(camera.sharpening))
    shape = light.shape[:2]
    illumination, seen = _illumination(rng, shape, camera.fault)
    light *= illumination
    _pull_colours_apart(rng, light, camera.fringe_um / sheet.um_per_px)
    _add_sensor_noise(rng, light, camera.noise)
    if seen is not None:
        light *= cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 3.0)[..., None]
    np.clip(light, 0.0, 255.0, out=light)
    return light.astype(np.uint8), seen


def _blurred(light: Float, sigma: float) -> Float:
    """Gaussian blur; a wide one is made on a smaller picture, as nothing fine is left of it."""
    if sigma < 1.8:
        size = 2 * int(np.ceil(2.6 * sigma)) + 1
        return np.asarray(cv2.GaussianBlur(light, (size, size), sigma), np.float32)
    shrink = 2 if sigma < 5.0 else int(sigma / 2)
    height, width = light.shape[:2]
    small = cv2.resize(light, (max(width // shrink, 1), max(height // shrink, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _illumination(
    rng: np.random.Generator, shape: tuple[int, int], fault: Fault
) -> tuple[Float, NDArray[np.bool_] | None]:
    """Light over the field, `[H, W, 1]`, about 1, and what an eyepiece leaves of it."""
    height, width = shape
    y, x = np.mgrid[-1.0:1.0:24j, -1.0:1.0:30j]
    tilt = 0.12 if fault is Fault.UNEVEN else 0.02
    falloff = rng.uniform(0.25, 0.45) if fault is Fault.UNEVEN else rng.uniform(0.0, 0.05)
    cx, cy = rng.uniform(-0.3, 0.3, 2)
    light = 1.0 + rng.normal(0, tilt) * x + rng.normal(0, tilt) * y - falloff * ((x - cx) ** 2 + (y - cy) ** 2) / 2
    if fault is Fault.DARK:
        light *= rng.uniform(0.3, 0.5)
    if fault is Fault.BRIGHT:
        light *= rng.uniform(1.25, 1.45)
    seen = None
    if fault is Fault.VIGNETTE:
        centre = np.array([width, height]) * rng.uniform(0.47, 0.53, 2)
        radius = rng.uniform(0.46, 0.56) * min(width, height) * 1.1
        rows, columns = np.ogrid[0:height, 0:width]
        away2 = ((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / radius**2
        seen = np.asarray(away2 < 1.0)
        px, py = (x + 1) * width / 2 - centre[0], (y + 1) * height / 2 - centre[1]
        light *= np.clip(1.0 - 0.35 * ((px**2 + py**2) / radius**2) ** 2, 0.3, 1.0)
    smooth = cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32)[..., None], seen


def _pull_colours_apart(rng: np.random.Generator, light: Float, fringe_px: float) -> None:
    """Shift red one way and blue the other, as an objective that is not fully corrected does."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    if fringe_px < 0.1:
        return
    height, width = light.shape[:2]
    for channel, way in ((0, 1.0), (2, -1.0)):
        move = np.array([[1.0, 0.0, way * fringe_px * np.cos(angle)], [0.0, 1.0, way * fringe_px * np.sin(angle)]])
        plane = np.ascontiguousarray(light[..., channel])
        light[..., channel] = cv2.warpAffine(plane, move, (width, height), borderMode=cv2.BORDER_REPLICATE)


def _add_sensor_noise(rng: np.random.Generator, light: Float, sigma: float) -> None:
    """Add grains of about a pixel and a half, as demosaicing leaves them, mostly in brightness."""
    height, width = light.shape[:2]
    tile = _noise_tile()[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]
    top, left = (int(n) for n in rng.integers(0, _TILE, 2))
    for y in range(-top, height, _TILE):
        for x in range(-left, width, _TILE):
            rows, columns = slice(max(y, 0), min(y + _TILE, height)), slice(max(x, 0), min(x + _TILE, width))
            grains = tile[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            light[rows, columns] += grains * np.float32(sigma)


@lru_cache(maxsize=1)
def _noise_tile() -> Float:
    """Noise of sigma 1, always the same; laid at random places it costs a tenth of fresh numbers and repeats unseen."""
    tile = np.random.default_rng(20_263).standard_normal((_TILE, _TILE, 3), np.float32)
    tile = np.asarray(cv2.GaussianBlur(tile, (3, 3), 0.6))
    tile = tile * np.float32(0.6) + tile.mean(axis=2, keepdims=True) * np.float32(0.8)
    scaled: Float = tile / tile.std()
    return scaled
