"""What a field's file says about itself before anything is decoded: its format, and whether it is all there."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    FieldAnimated,
    FieldDamaged,
    FieldFormatNotAllowed,
    FieldNotAnImage,
    FieldTooManyPixels,
    FieldTruncated,
)

MAX_SCANS: Final = 100
"""Scans of a progressive JPEG; encoders write about 10, a hostile file thousands, each a pass over the picture."""
MAX_PAGES: Final = 64
"""Focal planes in one TIFF; a longer stack is no field of a routine slide, and each page costs a decode."""

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_NOT_ALLOWED: Final = re.compile(rb"(?P<GIF>GIF8)|(?P<WebP>RIFF....WEBP)|(?P<HEIF>....ftyp)|(?P<PDF>%PDF)", re.DOTALL)
# In entropy-coded data FF is followed by 00 or a restart marker; anything else is the next segment.
_JPEG_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_EOI, _JPEG_SOS = 0xD9, 0xDA
_TIFF_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


@dataclass(frozen=True, slots=True)
class Source:
    """A field's bytes, the name it goes by in messages, and the most pixels it may have."""

    data: bytes
    name: str
    max_pixels: int

    def check_size(self, width: int, height: int) -> None:
        """Raises `FieldTooManyPixels`."""
        if width * height > self.max_pixels:
            raise FieldTooManyPixels(
                f"{self.name}: {width:,} × {height:,} pixels, {self.max_pixels:,} are allowed; "
                "send the slide as single fields and requeue it"
            )

    def ends_early(self, kind: str) -> FieldTruncated:
        """The error to raise when the file ends before its picture does."""
        return FieldTruncated(f"{self.name}: the {kind} ends early, after {len(self.data):,} bytes; {AGAIN}")


def sniff(source: Source) -> str:
    """The format by content: `JPEG`, `PNG`, `TIFF` or `BMP`.

    Raises:
        FieldTruncated, FieldFormatNotAllowed, FieldNotAnImage
    """
    for signature, kind in _SIGNATURES:
        if source.data.startswith(signature):
            return kind
    for signature, kind in _SIGNATURES:
        if signature.startswith(source.data):
            raise source.ends_early(kind)
    if found := _NOT_ALLOWED.match(source.data):
        raise FieldFormatNotAllowed(f"{source.name}: {found.lastgroup} is not taken; {CONVERT}")
    raise FieldNotAnImage(f"{source.name}: the content is no image (it begins with {source.data[:8]!r}); {AGAIN}")


def check_structure(source: Source, kind: str) -> None:
    """Refuse what is cut short or not one picture, from the file's own tables.

    Raises:
        FieldTruncated, FieldDamaged, FieldAnimated, FieldTooManyPixels
    """
    _CHECKS[kind](source)


def _check_jpeg(source: Source) -> None:
    """Walk the segments to the end mark: libjpeg paints what is missing grey, and says nothing."""
    data, at, scans = source.data, 2, 0
    while found := _JPEG_MARKER.search(data, at):
        marker, at = data[found.start(1)], found.end()
        if marker == _JPEG_EOI:
            return
        if at + 2 > len(data):
            break
        at += int.from_bytes(data[at : at + 2])
        if marker == _JPEG_SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise FieldDamaged(f"{source.name}: a JPEG of more than {MAX_SCANS} scans; {CONVERT}")
    raise source.ends_early("JPEG")


def _check_png(source: Source) -> None:
    """Walk the chunks to IEND. Damage inside them is found on decoding: Pillow and zlib check their sums."""
    data, at = source.data, 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if kind == b"acTL" and length >= 4 and int.from_bytes(data[at + 8 : at + 12]) > 1:
            raise FieldAnimated(f"{source.name}: an animated PNG; send the one frame that is the field and requeue")
        if kind == b"IEND":
            return
        at = end
    raise source.ends_early("PNG")


def _check_tiff(source: Source) -> None:
    """Every directory and every value it points to must be there; pixel data is checked page by page on reading."""
    data = source.data
    if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF: Pillow reads it, and finds its faults itself
        return
    order = "<" if data[:1] == b"I" else ">"
    seen: set[int] = set()
    pointer = 4
    while len(seen) <= MAX_PAGES:
        if pointer + 4 > len(data):
            raise source.ends_early("TIFF")
        (directory,) = struct.unpack_from(f"{order}I", data, pointer)
        if directory == 0 or directory in seen:
            return
        seen.add(directory)
        if directory + 2 > len(data):
            raise source.ends_early("TIFF")
        (entries,) = struct.unpack_from(f"{order}H", data, directory)
        pointer = directory + 2 + 12 * entries
        if pointer > len(data):
            raise source.ends_early("TIFF")
        for at in range(directory + 2, pointer, 12):
            _, kind, count, value = struct.unpack_from(f"{order}HHII", data, at)
            length = _TIFF_TYPE_BYTES.get(kind, 0) * count
            if length > 4 and value + length > len(data):
                raise source.ends_early("TIFF")


def _check_bmp(source: Source) -> None:
    """Uncompressed rows must be there; the size field of the header is often wrong and is not asked."""
    if len(source.data) < 34:
        raise source.ends_early("BMP")
    begin, header = struct.unpack_from("<II", source.data, 10)
    if header < 40:
        return
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", source.data, 18)
    source.check_size(abs(width), abs(height))
    if compression in (0, 3) and begin + (abs(width) * bits + 31) // 32 * 4 * abs(height) > len(source.data):
        raise source.ends_early("BMP")


_CHECKS: Final[dict[str, Callable[[Source], None]]] = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "TIFF": _check_tiff,
    "BMP": _check_bmp,
}
