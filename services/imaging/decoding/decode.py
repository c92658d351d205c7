"""Safe decoding of a field that came from outside: bytes in, 8-bit RGB out, or a refusal with its own reason code.

The content decides what a file is, never its name. Byte size, structure and pixel size are checked from the header
before anything is decoded, so a bomb or half a file costs nothing. Each format has one decoder, which refuses whatever
it would have to make up. What had to be converted is named in `notes`: `content_not_as_named`, `greyscale`, `palette`,
`alpha` (fully opaque, dropped), `depth_16_bit`, `orientation` (the field was turned the way every viewer shows it:
boxes of a manifest are in that picture), `page_k_of_n` (the sharpest focal plane), `channels` (red, green and blue were
pages of their own).
"""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from services.imaging.decoding.bmp import decode_bmp
from services.imaging.decoding.canvas import Canvas
from services.imaging.decoding.fill import check_fill
from services.imaging.decoding.jpeg import decode_jpeg
from services.imaging.decoding.png import decode_png
from services.imaging.decoding.refusals import AGAIN, CONVERT, FieldEmpty, FieldTooLarge
from services.imaging.decoding.source import Source, sniff
from services.imaging.decoding.stated_scale import stated_um_per_px
from services.imaging.decoding.tiff.decode import decode_tiff
from services.imaging.types import RGB, DecodedField

_DECODERS: Final[dict[str, Callable[[Source, Canvas, list[str]], RGB]]] = {
    "JPEG": decode_jpeg,
    "PNG": decode_png,
    "TIFF": decode_tiff,
    "BMP": decode_bmp,
}
_ENDINGS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
}


def decode_field(data: bytes, name: str, *, max_bytes: int, max_pixels: int, canvas: Canvas = np.empty) -> DecodedField:
    """Decode the file `data`, called `name`, to 8-bit RGB `[H, W, 3]` on `canvas`.

    More than 8 bits a channel are divided by a power of two (`depth`), so ratios of intensity survive. Of a focal
    stack the sharpest plane is taken. The same bytes give the same pixels, whatever was in memory before.

    Raises:
        FieldRefused: one of the subclasses in `refusals`, each with its `reason`.
        MemoryError: decoding takes more memory than this process may have.
    """
    if not data:
        raise FieldEmpty(f"{name}: the file has no bytes; {AGAIN}")
    if len(data) > max_bytes:
        raise FieldTooLarge(f"{name}: {len(data):,} bytes, {max_bytes:,} are allowed; {CONVERT}")
    source = Source(data, name, max_pixels)
    kind = sniff(source)
    notes: list[str] = []
    if _ENDINGS.get(PurePosixPath(name).suffix.lower(), kind) != kind:
        notes.append("content_not_as_named")
    pixels = _DECODERS[kind](source, canvas, notes)
    check_fill(source, pixels)
    return DecodedField(pixels=pixels, notes=tuple(notes), stated_um_per_px=stated_um_per_px(source, kind))
