"""A field's bytes, the format that they are of, and the bounds that hold for every format."""

import re
from dataclasses import dataclass
from typing import Final

from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    SINGLE_FIELDS,
    FieldFormatNotAllowed,
    FieldNotAnImage,
    FieldTooCompressed,
    FieldTooManyParts,
    FieldTooManyPixels,
    FieldTooSmall,
    FieldTruncated,
)

MIN_SIDE: Final = 16
"""Pixels; no objective shows a sperm head in fewer."""
MAX_SIDE: Final = 30_000
"""Pixels: cameras have up to 15,000 in a row, and some decoders keep buffers for each row or column."""
STACK_FACTOR: Final = 4
"""All pages of a focal stack together may have so many times the pixels of one field."""
MAX_PARTS: Final = 2**17
"""Strips and tiles of all pages, or chunks: a field of 60 megapixels in rows of three planes has 30,000."""
PLAUSIBLE_RATIO: Final = 300
"""Bytes of pixels for a byte of file: a photograph of mostly empty glass has 100, an empty picture 1000 and more."""
_LARGE_PIXELS: Final = 2**24  # below it, even an empty picture costs little

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_NOT_ALLOWED: Final = (
    (re.compile(rb"GIF8"), "GIF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"....ftypcrx ", re.DOTALL), "a camera's raw file (Canon CR3)"),
    (re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1|avif)", re.DOTALL), "HEIF"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"IIRO|IIRS|MMOR"), "a camera's raw file (Olympus ORF)"),
    (re.compile(rb"IIU\0"), "a camera's raw file (Panasonic RW2)"),
    (re.compile(rb"FUJIFILMCCD-RAW"), "a camera's raw file (Fujifilm RAF)"),
    (re.compile(rb"II\x1a\0\0\0HEAPCCDR"), "a camera's raw file (Canon CRW)"),
    (re.compile(rb"\0MRM"), "a camera's raw file (Minolta MRW)"),
    (re.compile(rb"FOVb"), "a camera's raw file (Sigma X3F)"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"%PDF"), "PDF"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A field's bytes, the name it goes by in messages, and the most pixels it may have."""

    data: bytes
    name: str
    max_pixels: int

    def check_size(self, width: int, height: int) -> None:
        """Bound what decoding will cost, before any of it is spent.

        Raises:
            FieldTooSmall, FieldTooManyPixels, FieldTooCompressed
        """
        if min(width, height) < MIN_SIDE:
            raise FieldTooSmall(
                f"{self.name}: {width:,} × {height:,} pixels; at least {MIN_SIDE} each way are required to show a head;"
                " send the whole field and requeue the slide"
            )
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise FieldTooManyPixels(
                f"{self.name}: {width:,} × {height:,} pixels, {self.max_pixels:,} are allowed, and {MAX_SIDE:,} in a"
                f" row or column; {SINGLE_FIELDS}"
            )
        if width * height > _LARGE_PIXELS and 3 * width * height > PLAUSIBLE_RATIO * len(self.data):
            raise FieldTooCompressed(
                f"{self.name}: {width:,} × {height:,} pixels in {len(self.data):,} bytes cannot be a photograph;"
                f" {CONVERT}"
            )

    def check_stack(self, pages: int, width: int, height: int) -> None:
        """Raises `FieldTooManyPixels` where all pages together cost too much."""
        if pages * width * height > STACK_FACTOR * self.max_pixels:
            raise FieldTooManyPixels(
                f"{self.name}: {pages} pages of {width:,} × {height:,} pixels, {STACK_FACTOR * self.max_pixels:,} are"
                " allowed in all; send the sharpest plane only and requeue the slide"
            )

    def check_parts(self, parts: int, what: str, most: int = MAX_PARTS) -> None:
        """Raises `FieldTooManyParts` where the picture comes in more than `most` of `what`."""
        if parts > most:
            raise FieldTooManyParts(f"{self.name}: more than {most:,} {what}; {CONVERT}")

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
    for pattern, kind in _NOT_ALLOWED:
        if pattern.match(source.data):
            raise FieldFormatNotAllowed(f"{source.name}: {kind} is not accepted; {CONVERT}")
    raise FieldNotAnImage(f"{source.name}: the content is not an image (it begins with {source.data[:8]!r}); {AGAIN}")
