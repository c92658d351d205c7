"""BMP by Pillow: only uncompressed rows, all of which must be there."""

import io
import struct
from typing import Final

import numpy as np
from PIL import Image

from services.imaging.decoding.canvas import Canvas, put
from services.imaging.decoding.refusals import AGAIN, CONVERT, FieldDamaged, FieldTransparent, FieldUnsupportedMode
from services.imaging.decoding.source import Source
from services.imaging.types import RGB

_PLAIN: Final = (0, 3, 6)  # rows as they are; masks say where the colours are, with or without alpha
_FILE_HEADER, _OLDEST_HEADER, _OLDER_HEADERS = 14, 12, 40


def decode_bmp(source: Source, canvas: Canvas, notes: list[str]) -> RGB:
    """The picture.

    Raises:
        FieldRefused: it is not whole, or not a picture for us.
    """
    width, height = _check_rows(source)
    try:
        with Image.open(io.BytesIO(source.data), formats=["BMP"]) as image:
            if image.size != (width, height):
                raise FieldDamaged(f"{source.name}: a BMP of {image.size}, not of {width, height}; {AGAIN}")
            return put(canvas, np.asarray(_as_rgb(source, image, notes)))
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error) as error:
        raise FieldDamaged(f"{source.name}: the BMP data does not decode ({error}); {AGAIN}") from error


def _check_rows(source: Source) -> tuple[int, int]:
    """Width and height; the size field of the header is often wrong and is not asked."""
    data = source.data
    if len(data) < 26:
        raise source.ends_early("BMP")
    begin, header = struct.unpack_from("<II", data, 10)
    compression = 0
    if header == _OLDEST_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif header < _OLDER_HEADERS or len(data) < 34:
        raise source.ends_early("BMP")
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        height = abs(height)  # rows from the top down
    if width < 0 or compression not in _PLAIN or bits < 4:
        raise FieldUnsupportedMode(f"{source.name}: a compressed or {bits}-bit BMP; {CONVERT}")
    source.check_size(width, height)
    if begin < _FILE_HEADER + header:
        raise FieldDamaged(f"{source.name}: the BMP's pixels are said to begin within its header; {AGAIN}")
    if begin + (width * bits + 31) // 32 * 4 * height > len(data):
        raise source.ends_early("BMP")
    return width, height


def _as_rgb(source: Source, image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode == "RGBA":
        notes.append("alpha")
        if image.getchannel("A").getextrema() != (255, 255):
            raise FieldTransparent(f"{source.name}: some pixels are transparent; {CONVERT}")
    elif image.mode in ("P", "L"):
        notes.append("palette" if image.mode == "P" else "greyscale")
    elif image.mode != "RGB":
        raise FieldUnsupportedMode(f"{source.name}: pixels of type {image.mode}; {CONVERT}")
    return image.convert("RGB")
