"""JPEG by libjpeg-turbo, whose warnings are refusals here: it paints what is missing grey, and goes on."""

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import simplejpeg

from services.imaging.decoding.canvas import Canvas, orientation_of_exif, put, upright
from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    FieldCMYK,
    FieldDamaged,
    FieldTruncated,
    FieldUnsupportedMode,
)
from services.imaging.decoding.source import Source
from services.imaging.types import RGB

MAX_SCANS: Final = 100
"""Scans of a progressive JPEG; encoders write about 10, a hostile file thousands, each a pass over the picture."""
MAX_SEGMENTS: Final = 4096
_SCANS_OF_LARGEST: Final = 16

# In entropy-coded data FF is followed by 00 or a restart marker; anything else is the next segment.
_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_EOI, _SOS, _APP1, _DHT, _JPG, _DAC = 0xD9, 0xDA, 0xE1, 0xC4, 0xC8, 0xCC
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {_DHT, _JPG, _DAC}
_READ_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # not lossless, not hierarchical
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_COEFFICIENTS: Final = 64
_UNSEEN: Final = 255
_END: Final = b"\xff\xd9"


@dataclass(slots=True)
class _Header:
    """What stands before the pixels; `missing` is the bits of each coefficient still to come, by component."""

    width: int = 0
    height: int = 0
    components: tuple[int, ...] = ()
    progressive: bool = False
    orientation: int = 1
    first_scan: int = 0
    missing: dict[int, list[int]] = field(default_factory=dict)


def decode_jpeg(source: Source, canvas: Canvas, notes: list[str]) -> RGB:
    """The picture, upright.

    Raises:
        FieldRefused: it is not whole, or not a picture for us.
    """
    header = _read_header(source)
    source.check_size(header.width, header.height)
    if len(header.components) == 1:
        notes.append("greyscale")
    if header.orientation == 1:
        return _decode(source, header, canvas)
    notes.append("orientation")
    return put(canvas, upright(_decode(source, header, np.empty), header.orientation))


def decode_jpeg_part(source: Source, most_pixels: int) -> RGB:
    """A strip or tile of a TIFF as it is, `[h, w, 3]` even where it is grey; `source.data` is a whole JPEG.

    Raises:
        FieldRefused: it is not whole, or of more than `most_pixels`.
    """
    header = _read_header(source)
    if not 0 < header.width * header.height <= most_pixels:
        raise FieldDamaged(f"{source.name}: a part of {header.width} × {header.height} pixels is too large; {AGAIN}")
    return _decode(source, header, np.empty)


def _decode(source: Source, header: _Header, canvas: Canvas) -> RGB:
    room: RGB = canvas((header.height, header.width, 3), np.uint8)
    try:
        try:
            _decode_strictly(source.data, room)
        except ValueError as error:
            if "extraneous bytes" not in str(error) or not _decode_unpadded(source.data, header.first_scan, room):
                raise
    except ValueError as error:
        if "memory" in str(error):
            raise MemoryError from error
        if "remature end" in str(error) and source.data.find(_END, header.first_scan) < 0:
            raise source.ends_early("JPEG") from error
        raise FieldDamaged(f"{source.name}: the JPEG data does not decode ({error}); {AGAIN}") from error
    return room


def _decode_strictly(data: bytes, room: RGB) -> None:
    """Raises `ValueError`, with libjpeg's words, where it warns."""
    pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=room, strict=True)
    if pixels.shape != room.shape:
        raise ValueError(f"it is of {pixels.shape}, its header says {room.shape}")


def _decode_unpadded(data: bytes, first_scan: int, room: RGB) -> bool:
    """Whether the picture, now in `room`, is whole without the zeros before its end; cameras fill sectors with them.

    One zero may be the last byte of the picture: then all of its bits are, as encoders fill up the rest of a byte with
    ones. So with another last bit it is another picture, or none.
    """
    end = data.find(_END, first_scan)
    whole = data[:end].rstrip(b"\0")
    if end == len(whole):
        return False
    if whole.endswith(b"\xff"):
        whole += b"\0"  # it stands for a byte of ones
    if _decodes(whole + _END, room):
        return True
    other = np.empty_like(room)
    changed = not _decodes(whole + b"\1" + _END, other)
    return _decodes(whole + b"\0" + _END, room) and (changed or not np.array_equal(room, other))


def _decodes(data: bytes, room: RGB) -> bool:
    try:
        _decode_strictly(data, room)
    except ValueError as error:
        if "memory" in str(error):
            raise
        return False
    return True


def _read_header(source: Source) -> _Header:
    """Walk the segments: to the picture's data where that is one scan, else to the end, counting what the scans bring.

    Scans that never come leave a picture without detail or without colour, and no decoder says so.
    """
    data, at, scans, segments, header = source.data, 2, 0, 0, _Header()
    while found := _MARKER.search(data, at):
        marker, at = data[found.start(1)], found.end()
        if marker == _EOI:
            if not scans or any(bits for component in header.missing.values() for bits in component):
                raise FieldTruncated(f"{source.name}: the JPEG ends before its last scan; {AGAIN}")
            return header
        segments += 1
        source.check_parts(segments, "segments", MAX_SEGMENTS)
        length = int.from_bytes(data[at : at + 2])
        body = data[at + 2 : at + length]
        if len(body) != length - 2 or at + length >= len(data):
            break
        if marker in _FRAMES:
            _read_frame(source, marker, body, header)
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            header.orientation = orientation_of_exif(body[6:])
        elif marker == _SOS:
            scans += 1
            header.first_scan = header.first_scan or at
            _read_scan(source, body, header)
            # Each scan is a pass over the whole picture.
            afford = _SCANS_OF_LARGEST * source.max_pixels // max(1, header.width * header.height)
            source.check_parts(scans, "scans", min(MAX_SCANS, afford))
            if not header.progressive and not any(map(any, header.missing.values())):
                return header  # libjpeg will say whether the data of this scan is whole
        at += length
    raise source.ends_early("JPEG")


def _read_frame(source: Source, marker: int, body: bytes, header: _Header) -> None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise FieldDamaged(f"{source.name}: the JPEG's frame header is damaged; {AGAIN}")
    if header.components:
        raise FieldDamaged(f"{source.name}: a JPEG with two frame headers; {AGAIN}")
    header.height, header.width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    header.components = tuple(body[6 + 3 * k] for k in range(body[5]))
    header.progressive = marker in _PROGRESSIVE
    header.missing = {component: [_UNSEEN] * _COEFFICIENTS for component in header.components}
    if body[0] != 8 or marker not in _READ_FRAMES:
        raise FieldUnsupportedMode(f"{source.name}: a lossless, hierarchical or {body[0]}-bit JPEG; {CONVERT}")
    if len(header.components) == 4:
        raise FieldCMYK(f"{source.name}: print colours (CMYK); {CONVERT}")
    if len(header.components) not in (1, 3):
        raise FieldUnsupportedMode(f"{source.name}: a JPEG of {len(header.components)} components; {CONVERT}")


def _read_scan(source: Source, body: bytes, header: _Header) -> None:
    """Note which bits of which coefficients the scan brings; in a sequential JPEG, all of its components."""
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count or not header.components:
        raise FieldDamaged(f"{source.name}: a JPEG scan without its header; {AGAIN}")
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    if not header.progressive:
        first, last, bits = 0, _COEFFICIENTS - 1, 0
    for component in body[1 : 1 + 2 * count : 2]:
        left = header.missing.get(component)
        if left is not None:
            for k in range(first, min(last, _COEFFICIENTS - 1) + 1):
                left[k] = bits & 15
