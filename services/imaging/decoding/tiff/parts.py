"""The strips and tiles of one page: held against the page's geometry, then decoded to its samples.

libtiff decodes what is not JPEG. It is given a TIFF of this one page, made of nothing but what was checked here; it
refuses a part that ends early, and would take a wrong geometry as it is.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.imaging.decoding.jpeg import decode_jpeg_part
from services.imaging.decoding.refusals import AGAIN, CONVERT, FieldDamaged, FieldUnsupportedMode
from services.imaging.decoding.source import Source
from services.imaging.decoding.tiff.directory import Page

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 7, 8, 32946, 32773, 34925, 50000
_BY_LIBTIFF: Final = {
    _NONE: _NONE,
    _LZW: _LZW,
    _DEFLATE: _DEFLATE,
    _OLD_DEFLATE: _DEFLATE,
    _PACKBITS: _PACKBITS,
    _LZMA: _LZMA,
    _ZSTD: _ZSTD,
}
_WITH_PREDICTOR: Final = (_LZW, _DEFLATE, _LZMA, _ZSTD)
_WHOLE_BYTES: Final = (8, 16)
_PACKED: Final = (2, 4, 10, 12, 14)
_SEPARATE: Final = 2
_YCBCR: Final = 6
_SHORT, _LONG = 3, 4


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a page is cut into parts. `rows` and `columns` are those of a part, `planes` the arrays side by side."""

    width: int
    height: int
    bits: int
    samples: int
    planes: int
    rows: int
    columns: int
    tiled: bool
    compression: int
    predictor: int

    @property
    def samples_together(self) -> int:
        """Values of a pixel that stand in one part."""
        return self.samples // self.planes

    @property
    def down(self) -> int:
        """Parts from top to bottom."""
        return -(-self.height // self.rows)

    @property
    def across(self) -> int:
        """Parts from left to right."""
        return -(-self.width // self.columns)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a part."""
        return -(-self.columns * self.samples_together * self.bits // 8)

    def rows_of(self, part: int) -> int:
        """Rows of part number `part`: the last strip has what is left, a tile always all."""
        last = part % (self.down * self.across) // self.across == self.down - 1
        return self.height - self.rows * (self.down - 1) if last and not self.tiled else self.rows


def read_geometry(source: Source, page: Page) -> tuple[Geometry, list[bytes]]:
    """The geometry of `page` and its parts, still encoded, plane by plane, from the top left.

    Raises:
        FieldRefused: parts are missing, or the page is of a kind that is not taken.
    """
    width, height = page.size
    source.check_size(width, height)
    bits = set(page.numbers.get("bits", (1,)))
    if len(bits) != 1 or not bits <= {*_WHOLE_BYTES, *_PACKED} or set(page.numbers.get("sample_format", (1,))) != {1}:
        raise FieldUnsupportedMode(f"{source.name}: {max(bits)}-bit, signed, float or mixed pixels; {CONVERT}")
    if not 1 <= page.samples <= 32:
        raise FieldUnsupportedMode(f"{source.name}: {page.samples} values per pixel; {CONVERT}")
    compression = page.number("compression", _NONE)
    if (compression != _JPEG and compression not in _BY_LIBTIFF) or page.number("fill_order", 1) != 1:
        raise FieldUnsupportedMode(f"{source.name}: TIFF compression {compression} is not accepted; {CONVERT}")
    tiled = "tile_offsets" in page.numbers or "tile_width" in page.numbers
    geometry = Geometry(
        width,
        height,
        bits.pop(),
        page.samples,
        page.samples if page.number("planar", 1) == _SEPARATE else 1,
        page.number("tile_height", 0) if tiled else min(height, page.number("rows_per_strip", height)),
        page.number("tile_width", 0) if tiled else width,
        tiled,
        compression,
        page.number("predictor", 1) if _BY_LIBTIFF.get(compression) in _WITH_PREDICTOR else 1,
    )
    _check_kind(source, geometry)
    return geometry, _parts(source, page, geometry)


def _check_kind(source: Source, geometry: Geometry) -> None:
    if geometry.rows < 1 or geometry.columns < 1:
        raise FieldDamaged(f"{source.name}: strips or tiles without a size; {AGAIN}")
    padded = geometry.down * geometry.rows * geometry.across * geometry.columns
    if padded > 4 * max(geometry.width * geometry.height, 2**20):
        raise FieldDamaged(f"{source.name}: tiles of {geometry.columns:,} × {geometry.rows:,} pixels; {AGAIN}")
    packed = geometry.bits in _PACKED
    if geometry.predictor not in (1, 2) or (packed and (geometry.tiled or geometry.predictor != 1)):
        raise FieldUnsupportedMode(f"{source.name}: {geometry.bits}-bit tiles or float prediction; {CONVERT}")
    if geometry.compression == _JPEG and geometry.bits != 8:
        raise FieldUnsupportedMode(f"{source.name}: {geometry.bits}-bit JPEG in a TIFF; {CONVERT}")


def _parts(source: Source, page: Page, geometry: Geometry) -> list[bytes]:
    what = "tile" if geometry.tiled else "strip"
    wanted = geometry.down * geometry.across * geometry.planes
    source.check_parts(wanted, f"{what}s")
    offsets = page.numbers.get(f"{what}_offsets", ())
    sizes = page.numbers.get(f"{what}_bytes", ())
    if not sizes and geometry.compression == _NONE:  # some old writers leave out what can be calculated
        sizes = tuple(geometry.row_bytes * geometry.rows_of(k) for k in range(len(offsets)))
    if len(offsets) != wanted or len(sizes) != wanted:
        raise FieldDamaged(
            f"{source.name}: {min(len(offsets), len(sizes))} {what}s, {geometry.width} × {geometry.height} pixels in"
            f" {geometry.planes} plane(s) have {wanted}; {AGAIN}"
        )
    if min(offsets) < 8 or min(sizes) < 1:
        raise FieldDamaged(f"{source.name}: a {what} without data; {AGAIN}")
    if any(offset + size > len(source.data) for offset, size in zip(offsets, sizes, strict=True)):
        raise source.ends_early("TIFF")
    # One even tile may stand for many of its plane; strips, and tiles of two planes, are never the same.
    per_plane = wanted // geometry.planes
    planes = [offsets[begin : begin + per_plane] for begin in range(0, wanted, per_plane)]
    distinct = sum(len(set(plane)) for plane in planes) if geometry.tiled else wanted
    if sum(sizes) > len(source.data) or len(set(offsets)) < distinct:
        raise FieldDamaged(f"{source.name}: the {what}s share their data; {AGAIN}")
    parts = [source.data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    _check_lengths(source, geometry, parts, what)
    return parts


def _check_lengths(source: Source, geometry: Geometry, parts: list[bytes], what: str) -> None:
    """Inflated, each part has the bytes of its rows; a last strip may be as long as the others.

    What follows is less than a row, or zeros.
    """
    length = _LENGTHS.get(_BY_LIBTIFF.get(geometry.compression, 0))
    if length is None:
        return
    for number, part in enumerate(parts):
        needed = geometry.row_bytes * geometry.rows_of(number)
        most = max(needed, geometry.row_bytes * geometry.rows)
        try:
            there = length(part, most + geometry.row_bytes)
        except zlib.error as error:
            raise FieldDamaged(f"{source.name}: {what} {number} does not inflate ({error}); {AGAIN}") from error
        if there < needed or there >= most + geometry.row_bytes:
            raise FieldDamaged(
                f"{source.name}: {what} {number} has {there:,} bytes of pixels, its rows have {needed:,}; {AGAIN}"
            )


def _inflated(part: bytes, most: int) -> int:
    """Bytes that `part` inflates to, at most `most`; its checksum is right."""
    stream = zlib.decompressobj()
    there = len(stream.decompress(part, most))
    if there < most and not stream.eof:
        raise zlib.error("the stream does not end")
    return there


def _written(part: bytes, most: int) -> int:
    """Bytes of `part`, at most `most`, which zeros alone do not reach: cameras fill sectors with them."""
    return min(len(part), most, max(most - 1, len(part.rstrip(b"\0"))))


_LENGTHS: Final[dict[int, Callable[[bytes, int], int]]] = {
    _NONE: _written,
    _DEFLATE: _inflated,
}


def decode_parts(source: Source, page: Page, order: str, geometry: Geometry, parts: list[bytes]) -> NDArray[Any]:
    """The samples: `[H, W]`, or `[H, W, samples]`; uint8, or uint16 where a sample has more than 8 bits.

    Raises:
        FieldDamaged: a part does not decode.
    """
    if geometry.compression == _JPEG:
        return _by_libjpeg(source, page, geometry, parts)
    packed = geometry.bits in _PACKED
    if packed:  # as rows of bytes, unpacked below
        geometry_read = replace(
            geometry, width=geometry.row_bytes, columns=geometry.row_bytes, samples=geometry.planes, bits=8
        )
    else:
        geometry_read = geometry
    values = _by_libtiff(source, order, geometry_read, parts)
    if packed:
        run = geometry.width * geometry.samples_together
        kind = np.uint8 if geometry.bits < 8 else np.uint16
        rows = np.ascontiguousarray(values).tobytes()
        values = np.asarray(imagecodecs.packints_decode(rows, kind, geometry.bits, runlen=run))
        values = values.reshape(geometry.planes, geometry.height, geometry.width, geometry.samples_together)
    values = values.reshape(geometry.planes, geometry.height, geometry.width, geometry.samples_together)
    # Either planes or samples_together is 1.
    together = np.moveaxis(values, 0, -1).reshape(geometry.height, geometry.width, geometry.samples)
    return together[..., 0] if geometry.samples == 1 else together


def _by_libtiff(source: Source, order: str, geometry: Geometry, parts: list[bytes]) -> NDArray[Any]:
    kind = np.uint16 if geometry.bits == 16 else np.uint8
    shape = [geometry.height, geometry.width]
    shape = [geometry.planes, *shape] if geometry.planes > 1 else shape
    shape = [*shape, geometry.samples_together] if geometry.samples_together > 1 else shape
    room = np.zeros(shape, kind)
    try:
        values = np.asarray(imagecodecs.tiff_decode(_plain_tiff(order, geometry, parts), out=room))
    except (IndexError, RuntimeError, ValueError) as error:
        if "memory" in str(error):
            raise MemoryError from error
        raise FieldDamaged(f"{source.name}: the TIFF data does not decode ({error}); {AGAIN}") from error
    if values.shape != tuple(shape) or values.dtype != kind:
        raise FieldDamaged(f"{source.name}: the TIFF is of {values.shape} {values.dtype}, not of {shape}; {AGAIN}")
    return values


def _plain_tiff(order: str, geometry: Geometry, parts: list[bytes]) -> bytes:
    """A TIFF of one page with these parts and no other tags than decoding them takes."""
    sizes = [len(part) for part in parts]
    offsets = np.concatenate([[8], 8 + np.cumsum(sizes)]).tolist()
    directory = offsets.pop()
    tags: dict[int, tuple[int, list[int]]] = {
        256: (_LONG, [geometry.width]),
        257: (_LONG, [geometry.height]),
        258: (_SHORT, [geometry.bits] * geometry.samples),
        259: (_SHORT, [_BY_LIBTIFF[geometry.compression]]),
        262: (_SHORT, [1]),
        277: (_SHORT, [geometry.samples]),
        284: (_SHORT, [_SEPARATE if geometry.planes > 1 else 1]),
    }
    if geometry.predictor != 1:
        tags[317] = (_SHORT, [geometry.predictor])
    if geometry.samples > 1:
        tags[338] = (_SHORT, [0] * (geometry.samples - 1))
    if geometry.tiled:
        tags |= {322: (_LONG, [geometry.columns]), 323: (_LONG, [geometry.rows])}
        tags |= {324: (_LONG, offsets), 325: (_LONG, sizes)}
    else:
        tags |= {273: (_LONG, offsets), 278: (_LONG, [geometry.rows]), 279: (_LONG, sizes)}
    entries, values = bytearray(), bytearray()
    values_at = directory + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{'H' if kind == _SHORT else 'I'}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", values_at + len(values))
            values += data
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory)
    return b"".join([head, *parts, struct.pack(f"{order}H", len(tags)), entries, bytes(4), values])


def _by_libjpeg(source: Source, page: Page, geometry: Geometry, parts: list[bytes]) -> NDArray[np.uint8]:
    tables = page.texts.get("jpeg_tables", b"")
    # The page says whether the JPEGs are of RGB or YCbCr; they need not, and libjpeg would guess.
    transform = int(page.number("photometric", 1) == _YCBCR)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    start = b"\xff\xd8" + adobe + tables[2:-2] if geometry.samples_together == 3 else b"\xff\xd8" + tables[2:-2]
    if geometry.samples_together not in (1, 3):
        raise FieldUnsupportedMode(f"{source.name}: a JPEG of {geometry.samples} samples in a TIFF; {CONVERT}")
    room = np.zeros((geometry.planes, geometry.height, geometry.width, geometry.samples_together), np.uint8)
    for number, part in enumerate(parts):
        plane, place = divmod(number, geometry.down * geometry.across)
        y, x = (place // geometry.across) * geometry.rows, (place % geometry.across) * geometry.columns
        pixels = decode_jpeg_part(replace(source, data=start + part[2:]), geometry.rows * geometry.columns)
        target = room[plane, y : y + geometry.rows, x : x + geometry.columns]
        if pixels.shape[0] < target.shape[0] or pixels.shape[1] != geometry.columns:
            raise FieldDamaged(f"{source.name}: a part of {pixels.shape[1]} × {pixels.shape[0]} pixels; {AGAIN}")
        target[...] = pixels[: target.shape[0], : target.shape[1], : geometry.samples_together]
    together = np.moveaxis(room, 0, -1).reshape(geometry.height, geometry.width, geometry.samples)
    return together[..., 0] if geometry.samples == 1 else together
