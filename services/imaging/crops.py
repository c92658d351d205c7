"""Squares of a fixed size in µm around a cell, as the networks take them: UINT8 RGB, the head's box in the middle.

A field is brought near the scale of the crops once; each crop is then one small resampling of its own window, so the
cost of a cell does not grow with the field. What lies beyond the border is the field's background, never black: black
is a colour that the networks would have to learn to ignore.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import Planes
from services.imaging.types import RGB, Box, Microns, Pixels, UmPerPx

_NARROW: Final = 0.6  # σ, pixels
_SAMPLE_STEP: Final = 16  # every 16th pixel each way: 5,000 of a usual field are plenty for a median


def crop_cells(
    pixels: RGB,
    boxes: Sequence[Box],
    *,
    um_per_px: UmPerPx,
    crop_um: Microns,
    size_px: Pixels,
    planes: Planes | None = None,
) -> NDArray[np.uint8]:
    """Crop a square of `crop_um` µm around the centre of each box: `[N, size_px, size_px, 3]`, in the order of `boxes`.

    `pixels` is a field `[H, W, 3]` of `um_per_px` µm a pixel, and `planes` are its own, where there are any; its
    background fills what lies beyond the border.
    """
    return _crop(planes or Planes(pixels), boxes, crop_um / um_per_px, size_px, _field_background(pixels))


def crop_inside_shares(
    boxes: Sequence[Box],
    size: tuple[Pixels, Pixels],
    *,
    um_per_px: UmPerPx,
    crop_um: Microns,
    covered: NDArray[np.uint8] | None = None,
) -> list[float]:
    """How much of the crop around each box lies in its field, 0 to 1, to four digits: the rest is filled up.

    `size` is the field's (width, height). What `covered` `[H, W]` marks is not of the field: no cell is seen there.
    """
    side = crop_um / um_per_px
    hidden = None if covered is None else cv2.integral(covered)
    shares = []
    for box in boxes:
        (x0, x1), (y0, y1) = (
            (max(0.0, (low + high - side) / 2), min(float(end), (low + high + side) / 2))
            for low, high, end in ((box.x0, box.x1, size[0]), (box.y0, box.y1, size[1]))
        )
        inside = (x1 - x0) * (y1 - y0)
        if hidden is not None:
            left, right, top, bottom = (round(edge) for edge in (x0, x1, y0, y1))
            inside -= float(hidden[bottom, right] - hidden[top, right] - hidden[bottom, left] + hidden[top, left])
        shares.append(round(min(1.0, max(0.0, inside / side**2)), 4))
    return shares


def crop_of_cell_image(pixels: RGB, *, um_per_px: UmPerPx, crop_um: Microns, size_px: Pixels) -> NDArray[np.uint8]:
    """The crop of an image `[H, W, 3]` that is one cell (`kind: "crop"`): `[size_px, size_px, 3]`.

    The middle of the image is the middle of the crop, at the same scale as the crops of a field.
    """
    height, width = pixels.shape[:2]
    whole = Box(0, 0, width, height)
    crop: NDArray[np.uint8] = _crop(Planes(pixels), [whole], crop_um / um_per_px, size_px, _rim_colour(pixels))[0]
    return crop


def _crop(
    planes: Planes, boxes: Sequence[Box], side: float, size_px: int, background: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Crops of `side` field pixels. Positions are continuous: pixel i covers i to i + 1, its centre is i + 0.5."""
    crops = np.empty((len(boxes), size_px, size_px, 3), np.uint8)
    if not len(boxes):
        return crops
    step = side / size_px  # field pixels a crop pixel
    near, shrunk = _near_scale(planes, step)
    padded = cv2.cvtColor(near, cv2.COLOR_RGB2RGBA)  # OpenCV warps four channels more than twice as fast as three
    interpolation = cv2.INTER_CUBIC if step < 1 else cv2.INTER_LINEAR
    for crop, box in zip(crops, boxes, strict=True):
        left = (box.x0 + box.x1 - side + step) / (2 * shrunk) - 0.5
        top = (box.y0 + box.y1 - side + step) / (2 * shrunk) - 0.5
        warped = cv2.warpAffine(
            padded,
            np.array([[step / shrunk, 0.0, left], [0.0, step / shrunk, top]]),
            (size_px, size_px),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=background,
        )
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=crop)
    return crops


def _near_scale(planes: Planes, step: float) -> tuple[RGB, int]:
    """The field shrunk by the whole factor below `step` and smoothed for the rest, and that factor."""
    shrunk = max(1, int(step))
    pixels = planes.pixels
    height, width = pixels.shape[:2]
    if shrunk == 2 and height % 2 == width % 2 == 0:
        pixels = planes.shrunk(2).pixels
    elif shrunk > 1:
        # Whole blocks only, or resize would stretch the field by a fraction of a pixel.
        pixels = cv2.copyMakeBorder(pixels, 0, -height % shrunk, 0, -width % shrunk, cv2.BORDER_REPLICATE).astype(
            np.uint8, copy=False
        )
        size = pixels.shape[1] // shrunk, pixels.shape[0] // shrunk
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    rest = step / shrunk
    if rest > 1:  # leaves no more of a pattern too fine for the crop than the mean over the area would
        sigma = 0.55 * (rest**2 - 1) ** 0.5
        width = 3 if sigma < _NARROW else 0  # what a wider kernel would take in is less than half a grey level
        pixels = cv2.GaussianBlur(pixels, (width, width), sigma).astype(np.uint8, copy=False)
    return pixels, shrunk


def _field_background(pixels: RGB) -> tuple[float, float, float]:
    """Median colour of the brighter half: right as long as stain and vignette cover less than half of the field."""
    sample = np.ascontiguousarray(pixels[::_SAMPLE_STEP, ::_SAMPLE_STEP].reshape(-1, 3).T)
    bright = sample[:, sample[1] >= np.median(sample[1])]
    return _median_colour(bright)


def _rim_colour(pixels: RGB) -> tuple[float, float, float]:
    """Median colour of the outermost pixels: the cell stands in the middle, its tail crosses the rim once."""
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return _median_colour(rim.T)


def _median_colour(colours: NDArray[np.uint8]) -> tuple[float, float, float]:
    red, green, blue = np.median(colours, axis=1)
    return float(red), float(green), float(blue)
