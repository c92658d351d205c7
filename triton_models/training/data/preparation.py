"""From an image file to the square UINT8 crop that a network is given."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from services.errors import PermanentError
from triton_models.training.config import Fit, Preparation

_FORMATS = ("BMP", "JPEG", "PNG", "TIFF")
_MAX_PIXELS = 4096 * 4096
# What Pillow raises on damaged files, and on such as claim to be huge.
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageUnreadable(PermanentError):
    """A file of a data set is not an image that can be trained on."""

    reason = "image_unreadable"


def read_image(path: Path) -> NDArray[np.uint8]:
    """The RGB pixels `[H, W, 3]` of the image file `path`.

    Raises:
        ImageUnreadable: it is missing, truncated, too large, or in none of the formats BMP, JPEG, PNG, TIFF.
    """
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            path.open("rb") as file,
            Image.open(file, formats=_FORMATS) as image,
        ):
            if image.width * image.height > _MAX_PIXELS:
                raise ImageUnreadable(f"{path}: {image.width} × {image.height} pixels are too many for a single cell")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except _DAMAGED as error:
        raise ImageUnreadable(f"{path}: {error}") from error


def _padded(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """`pixels` in the middle of `[height, width]`, cut or its edge repeated."""
    down, right = height - pixels.shape[0], width - pixels.shape[1]
    if down < 0 or right < 0:
        top, left = max(-down // 2, 0), max(-right // 2, 0)
        pixels = pixels[top : top + min(height, pixels.shape[0]), left : left + min(width, pixels.shape[1])]
        down, right = max(down, 0), max(right, 0)
    edges = (down // 2, down - down // 2, right // 2, right - right // 2)
    padded: NDArray[np.uint8] = cv2.copyMakeBorder(pixels, *edges, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    return padded


def prepare(pixels: NDArray[np.uint8], how: Preparation, margin: float = 1.0) -> NDArray[np.uint8]:
    """The crop `[S, S, 3]` of an image `[H, W, 3]`, S = `side_px` × `margin`, rounded.

    A margin above 1 shows more around the same crop at the same scale, for augmentations that turn and shift it.
    """
    height, width = pixels.shape[:2]
    side = round(how.side_px * margin)
    match how.fit:
        case Fit.VIEW:
            seen = round(how.view_px * margin)
            square = _padded(pixels, seen, seen)
        case Fit.PAD:
            seen = round(max(height, width) * margin)
            square = _padded(pixels, seen, seen)
        case Fit.STRETCH:
            square = _padded(pixels, round(height * margin), round(width * margin))
    shrinks = square.shape[0] * square.shape[1] > side * side
    resized = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)


def read_crops(paths: Sequence[Path], how: Preparation, margin: float = 1.0) -> NDArray[np.uint8]:
    """The crops `[N, S, S, 3]` of image files.

    Raises:
        ImageUnreadable: names the first file that cannot be read.
    """
    side = round(how.side_px * margin)
    crops = np.empty((len(paths), side, side, 3), np.uint8)
    for number, path in enumerate(paths):
        crops[number] = prepare(read_image(path), how, margin)
    return crops
