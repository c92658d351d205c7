"""Where a decoded picture is put, and how it is turned upright."""

import struct
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from services.imaging.types import RGB

_ORIENTATION: Final = 0x0112
_MOST_ENTRIES: Final = 512


class Canvas(Protocol):
    """Makes the array for the final pixels; `np.empty` is one. What is in it before does not matter: all is written."""

    def __call__(self, shape: tuple[int, int, int], dtype: DTypeLike, /) -> Any:
        """An array of this shape and type."""


def put(canvas: Canvas, pixels: RGB) -> RGB:
    """`pixels` on the canvas."""
    height, width = pixels.shape[:2]
    room: RGB = canvas((height, width, 3), np.uint8)
    np.copyto(room, pixels, casting="no")
    return room


def orientation_of_exif(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read: the picture is still good."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    (at,) = struct.unpack_from(f"{order}I", exif, 4)
    if at + 2 > len(exif):
        return 1
    (entries,) = struct.unpack_from(f"{order}H", exif, at)
    for entry in range(at + 2, at + 2 + 12 * min(entries, _MOST_ENTRIES), 12):
        if entry + 12 > len(exif):
            break
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if (tag, kind, count) == (_ORIENTATION, 3, 1):
            return value if value in range(1, 9) else 1
    return 1


def upright(pixels: RGB, orientation: int) -> RGB:
    """`pixels` as every viewer shows a picture of this EXIF orientation."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def as_rgb(pixels: NDArray[np.uint8]) -> RGB:
    """`[H, W]` or `[H, W, 3]` as `[H, W, 3]`, without copying."""
    return np.broadcast_to(pixels[..., np.newaxis], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels
