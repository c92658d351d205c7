"""PNG: its chunks are checked and its data is inflated here, to the length that its header states; libpng unfilters.

What libpng is given holds nothing but the header, the palette, the transparency and the inflated rows: it stops reading
with the last row that the header asks for, and would not notice a wrong header or a missing checksum.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.imaging.decoding.canvas import Canvas, as_rgb, orientation_of_exif, put, upright
from services.imaging.decoding.depth import to_8_bit
from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    FieldAnimated,
    FieldDamaged,
    FieldTransparent,
    FieldUnsupportedMode,
)
from services.imaging.decoding.source import Source
from services.imaging.types import RGB

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_SAMPLES: Final = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_DEPTHS: Final = {_GREY: (2, 4, 8, 16), _PALETTE: (1, 2, 4, 8)}
_WITH_ALPHA: Final = (_GREY_ALPHA, _COLOUR_ALPHA)
# Column and row of the first pixel, and steps, of the seven passes of an interlaced picture.
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Of other chunks only their length is of interest.
_CHECKED: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL")
_NAMELESS: Final = "the PNG's"


@dataclass(slots=True)
class _Chunks:
    header: bytes = b""
    palette: bytes = b""
    transparency: bytes | None = None
    orientation: int = 1
    data: list[memoryview] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Form:
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def inflated(self) -> int:
        """Bytes of all rows with the filter byte of each."""
        bits = self.depth * _SAMPLES[self.colour]
        total = 0
        for x, y, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - x) // across), -(-(self.height - y) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * bits // 8))
        return total


def decode_png(source: Source, canvas: Canvas, notes: list[str]) -> RGB:
    """The picture, upright.

    Raises:
        FieldRefused: it is not whole, or not a picture for us.
    """
    chunks = _read_chunks(source)
    form = _read_form(source, chunks.header)
    if form.colour == _PALETTE and (not chunks.palette or len(chunks.palette) % 3):
        raise FieldDamaged(f"{source.name}: {_NAMELESS} palette is missing or damaged; {AGAIN}")
    values = _unfiltered(source, chunks, form)
    pixels = _without_alpha(source, values, form, chunks, notes)
    if pixels.dtype == np.uint16:
        notes.append("depth_16_bit")
        pixels = to_8_bit(pixels)
    if form.colour == _PALETTE:
        notes.append("palette")
    elif form.colour in (_GREY, _GREY_ALPHA):
        notes.append("greyscale")
    if chunks.orientation != 1:
        notes.append("orientation")
    return put(canvas, upright(as_rgb(pixels), chunks.orientation))


def _read_chunks(source: Source) -> _Chunks:
    data, at, found, count = source.data, 8, _Chunks(), 0
    whole = memoryview(data)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        count += 1
        source.check_parts(count, "chunks")
        if kind in _CHECKED and zlib.crc32(whole[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise FieldDamaged(f"{source.name}: {_NAMELESS} checksum of {kind.decode()} is wrong; {AGAIN}")
        body = whole[at + 8 : end - 4]
        if kind == b"IHDR" and not found.header:
            found.header = bytes(body)
        elif kind == b"PLTE" and not found.palette:
            found.palette = bytes(body)
        elif kind == b"tRNS":
            found.transparency = bytes(body)
        elif kind == b"eXIf":
            found.orientation = orientation_of_exif(bytes(body))
        elif kind == b"IDAT":
            found.data.append(body)
        elif kind == b"acTL" and length >= 4 and int.from_bytes(body[:4]) > 1:
            raise FieldAnimated(f"{source.name}: an animated PNG; send the one frame that is the field and requeue")
        elif kind == b"IEND":
            return found
        at = end
    raise source.ends_early("PNG")


def _read_form(source: Source, header: bytes) -> _Form:
    if len(header) != 13:
        raise FieldDamaged(f"{source.name}: a PNG without its header; {AGAIN}")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if compression or filtering or interlace > 1 or colour not in _SAMPLES:
        raise FieldDamaged(f"{source.name}: {_NAMELESS} header is damaged; {AGAIN}")
    if depth not in _DEPTHS.get(colour, (8, 16)):
        raise FieldUnsupportedMode(f"{source.name}: a PNG of {depth}-bit pixels; {CONVERT}")
    source.check_size(width, height)
    return _Form(width, height, depth, colour, bool(interlace))


def _unfiltered(source: Source, chunks: _Chunks, form: _Form) -> NDArray[Any]:
    """`[H, W]` or `[H, W, C]`, uint8 or uint16; a palette is applied, its transparency a fourth channel."""
    stream = zlib.decompressobj()
    rows = bytearray()
    try:
        for part in chunks.data:
            if stream.eof:
                break
            rows += stream.decompress(part, form.inflated + 1 - len(rows))
            if len(rows) > form.inflated:
                break
    except zlib.error as error:
        raise FieldDamaged(f"{source.name}: {_NAMELESS} data does not inflate ({error}); {AGAIN}") from error
    if len(rows) != form.inflated or not stream.eof:
        more = "more" if len(rows) > form.inflated else f"{len(rows):,}"
        raise FieldDamaged(
            f"{source.name}: {_NAMELESS} header states {form.inflated:,} bytes of rows, there are {more}; {AGAIN}"
        )
    parts = [(b"IHDR", chunks.header)]
    if form.colour == _PALETTE:
        parts.append((b"PLTE", chunks.palette))
    if chunks.transparency is not None and form.colour not in _WITH_ALPHA:
        parts.append((b"tRNS", chunks.transparency))
    parts += [(b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    plain = b"".join([_SIGNATURE, *(_chunk(kind, body) for kind, body in parts)])
    del rows, parts
    try:
        return np.asarray(imagecodecs.png_decode(plain))
    except (RuntimeError, ValueError) as error:
        raise FieldDamaged(f"{source.name}: the PNG data does not decode ({error}); {AGAIN}") from error


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _without_alpha(
    source: Source, values: NDArray[Any], form: _Form, chunks: _Chunks, notes: list[str]
) -> NDArray[Any]:
    """`values` without their alpha channel, which must be opaque."""
    plain = 1 if form.colour in (_GREY, _GREY_ALPHA) else 3
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.shape[:2] != (form.height, form.width) or channels not in (plain, plain + 1):
        raise FieldDamaged(f"{source.name}: the PNG is of {values.shape}, not of what its header states; {AGAIN}")
    if form.colour in _WITH_ALPHA or chunks.transparency is not None:
        notes.append("alpha")
    if channels == plain:
        return values
    if (values[..., -1] != np.iinfo(values.dtype).max).any():
        raise FieldTransparent(f"{source.name}: some pixels are transparent; {CONVERT}")
    return values[..., 0] if plain == 1 else values[..., :3]
