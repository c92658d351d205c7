"""Files of one drawn field in every form that is taken, and ways to change what a TIFF or a JPEG says of itself."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.imaging.decoding.decode import decode_field
from services.imaging.types import DecodedField

HEIGHT, WIDTH = 96, 112


def drawn_field(seed: int = 3) -> NDArray[np.uint8]:
    """A soft random picture `[96, 112, 3]`: no row, column or channel like another, and JPEG keeps it nearly."""
    noise = np.random.default_rng(seed).integers(40, 240, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3)).astype(np.uint8)


FIELD: Final = drawn_field()
DEEP: Final = FIELD.astype(np.uint16) * 257
TWELVE: Final = FIELD.astype(np.uint16) << 4


def saved(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """The file that Pillow writes of `pixels` `[H, W]` or `[H, W, C]`."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    """The TIFF that libtiff writes; `tile`, `rowsperstrip`, `planarconfig`, `compression`, `predictor`, `description`.

    Planar ones take `[C, H, W]`, stacks another axis in front.
    """
    colour = pixels.ndim >= 3 and 3 in (pixels.shape[-1], pixels.shape[-3])
    return bytes(imagecodecs.tiff_encode(pixels, photometric="rgb" if colour else "minisblack", **options))


def planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """`[H, W, C]` as `[C, H, W]`."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def decode(data: bytes, name: str = "slide-01/field-001", max_pixels: int = 1_000_000) -> DecodedField:
    """Decode in this process."""
    return decode_field(data, name, max_bytes=8_000_000, max_pixels=max_pixels)


JPEGS: Final[dict[str, bytes]] = {
    "jpeg": saved(FIELD, "JPEG", quality=90),
    "jpeg-444": saved(FIELD, "JPEG", quality=90, subsampling=0),
    "jpeg-progressive": saved(FIELD, "JPEG", quality=90, progressive=True),
    "jpeg-restart": saved(FIELD, "JPEG", quality=90, restart_marker_blocks=3),
    "jpeg-grey": saved(FIELD[..., 1], "JPEG", quality=90),
    "jpeg-grey-progressive": saved(FIELD[..., 1], "JPEG", quality=90, progressive=True),
}
PNGS: Final[dict[str, bytes]] = {
    "png": saved(FIELD, "PNG"),
    "png-grey": saved(FIELD[..., 1], "PNG"),
    "png-16": cv2.imencode(".png", np.ascontiguousarray(TWELVE[..., ::-1]))[1].tobytes(),
    "png-16-grey": cv2.imencode(".png", DEEP[..., 1])[1].tobytes(),
    "png-alpha": saved(np.dstack([FIELD, np.full((HEIGHT, WIDTH), 255, np.uint8)]), "PNG"),
}
TIFFS: Final[dict[str, bytes]] = {
    "tiff": tiff(FIELD, rowsperstrip=24),
    "tiff-tiles": tiff(FIELD, tile=(32, 32)),
    "tiff-planes": tiff(planes(FIELD), planarconfig="separate", rowsperstrip=24),
    "tiff-planes-tiles": tiff(planes(FIELD), planarconfig="separate", tile=(32, 32)),
    "tiff-grey": tiff(FIELD[..., 1], rowsperstrip=24),
    "tiff-16": tiff(DEEP, rowsperstrip=24),
    "tiff-16-planes": tiff(planes(DEEP), planarconfig="separate", rowsperstrip=24),
    "tiff-16-tiles": tiff(TWELVE, tile=(32, 32), compression="lzw", predictor=True),
    "tiff-16-grey-big-endian": tiff(TWELVE[..., 1], byteorder=">", rowsperstrip=24),
    "tiff-bigtiff": tiff(FIELD, bigtiff=True, rowsperstrip=24),
    **{
        f"tiff-{name}": tiff(FIELD, compression=name, rowsperstrip=24, predictor=name in ("lzw", "deflate") or None)
        for name in ("lzw", "deflate", "packbits", "zstd", "lzma")
    },
    "tiff-jpeg": saved(FIELD, "TIFF", compression="jpeg"),
}
OTHERS: Final[dict[str, bytes]] = {
    "bmp": saved(FIELD, "BMP"),
    "bmp-grey": saved(FIELD[..., 1], "BMP"),
}
CORPUS: Final = {**JPEGS, **PNGS, **TIFFS, **OTHERS}


def tiff_entries(data: bytes, page: int = 0) -> dict[int, int]:
    """Where the entry of each tag of a classic little-endian TIFF begins."""
    (at,) = struct.unpack_from("<I", data, 4)
    for _ in range(page):
        (entries,) = struct.unpack_from("<H", data, at)
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * entries)
    (entries,) = struct.unpack_from("<H", data, at)
    return {struct.unpack_from("<H", data, entry)[0]: entry for entry in range(at + 2, at + 2 + 12 * entries, 12)}


def with_tag(data: bytes, tag: int, values: Sequence[int], *, instead_of: int | None = None, page: int = 0) -> bytes:
    """`data` whose tag has these (LONG) values; a tag that is not there takes the place of `instead_of`."""
    changed = bytearray(data)
    entry = tiff_entries(data, page)[tag if instead_of is None else instead_of]
    place = len(changed)
    struct.pack_into("<HHII", changed, entry, tag, 4, len(values), values[0] if len(values) == 1 else place)
    if len(values) > 1:
        changed += struct.pack(f"<{len(values)}I", *values)
    return bytes(changed)


def tag_values(data: bytes, tag: int, page: int = 0) -> tuple[int, ...]:
    """The (LONG or SHORT) values of a tag."""
    entry = tiff_entries(data, page)[tag]
    _, kind, count, value = struct.unpack_from("<HHII", data, entry)
    letter, size = {3: ("H", 2), 4: ("I", 4)}[kind]
    return struct.unpack_from(f"<{count}{letter}", data, entry + 8 if count * size <= 4 else value)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header: tuple[int, int, int, int], *chunks: tuple[bytes, bytes], interlaced: int = 0) -> bytes:
    """A PNG of width, height, depth and colour type, and these chunks."""
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + body + b"".join(png_chunk(*chunk) for chunk in chunks) + png_chunk(b"IEND", b"")
