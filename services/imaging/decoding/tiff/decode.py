"""TIFF: one page, the sharpest of several focal planes, or the three pages that are red, green and blue."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.decoding.canvas import Canvas, as_rgb, put, upright
from services.imaging.decoding.depth import to_8_bit
from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    SINGLE_FIELDS,
    FieldCMYK,
    FieldDamaged,
    FieldSeparateChannels,
    FieldTooManyPages,
    FieldTransparent,
    FieldUnsupportedMode,
)
from services.imaging.decoding.source import Source
from services.imaging.decoding.tiff.camera_raw import check_not_raw
from services.imaging.decoding.tiff.directory import Page, read_pages
from services.imaging.decoding.tiff.meaning import Meaning, check_pages, read_meaning
from services.imaging.decoding.tiff.parts import Geometry, decode_parts, read_geometry
from services.imaging.likeness import Signature, likeness, signature_of
from services.imaging.types import RGB

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG: Final = 7
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OTHER_FIELD: Final = 0.6  # how pages correlate: those of other fields by 0.48 at most, blurred planes of one by 0.84
_ALPHA: Final = (1, 2, 999)  # ExtraSamples; 999 is one maker's


@dataclass(frozen=True, slots=True)
class _Picture:
    pixels: RGB
    notes: list[str]


def decode_tiff(source: Source, canvas: Canvas, notes: list[str]) -> RGB:
    """The picture, upright.

    Raises:
        FieldRefused: it is not whole, or not a picture for us.
    """
    order, pages = read_pages(source)
    check_not_raw(source, pages)
    full = _full_size(source, pages)
    meaning = read_meaning(pages[0])
    check_pages(source, meaning, full)
    source.check_stack(len(full), *full[0].size)
    cut = [(page, *read_geometry(source, page)) for page in full]
    if sum(len(part) for _, _, parts in cut for part in parts) > len(source.data):
        raise FieldDamaged(f"{source.name}: its {len(full)} pages share their data; {AGAIN}")
    reader = _Reader(source, order, meaning, cut)
    if meaning.channels > 1:
        picture = _sharpest(source, (reader.coloured(plane) for plane in range(len(full) // meaning.channels)))
    elif len(full) > 1:
        picture = _sharpest(source, _numbered(reader, full, len(pages)))
    else:
        picture = reader.picture(0)
    notes += picture.notes
    return put(canvas, picture.pixels)


def _full_size(source: Source, pages: list[Page]) -> list[Page]:
    """The largest pages; smaller ones are thumbnails and levels of a pyramid.

    The only page is the picture, even where its writer calls it reduced.
    """
    not_these = _MASK if len(pages) == 1 else _REDUCED | _MASK
    pictures = [page for page in pages if not page.number("subfile", 0) & not_these]
    if not pictures:
        raise FieldUnsupportedMode(f"{source.name}: only previews of a picture are in it; {CONVERT}")
    largest = max((page.size for page in pictures), key=lambda size: size[0] * size[1])
    return [page for page in pictures if page.size == largest]


def _numbered(reader: "_Reader", full: list[Page], count: int) -> Iterator[_Picture]:
    for number, page in enumerate(full):
        picture = reader.picture(number)
        picture.notes.append(f"page_{page.index + 1}_of_{count}")
        yield picture


def _sharpest(source: Source, pictures: Iterable[_Picture]) -> _Picture:
    """Only one picture and the sharpest so far are in memory.

    Raises:
        FieldTooManyPages: they are no focal planes of one field.
    """
    best: _Picture | None = None
    highest = -1.0
    shown: Signature | None = None
    for picture in pictures:
        signature = signature_of(np.ascontiguousarray(picture.pixels))
        if shown is None:
            shown = signature
        elif signature is not None and likeness(shown[np.newaxis], signature[np.newaxis])[0, 0] < _OTHER_FIELD:
            raise FieldTooManyPages(f"{source.name}: its pages show different fields; {SINGLE_FIELDS}")
        sharpness = _sharpness(picture.pixels)
        if sharpness > highest:
            best, highest = picture, sharpness
    assert best is not None  # noqa: S101 - a TIFF without a page was refused
    return best


def _sharpness(pixels: RGB) -> float:
    """Energy of gradients over squared brightness, for telling planes of one field apart; unitless."""
    green = cv2.GaussianBlur(np.ascontiguousarray(pixels[..., 1]), (3, 3), 0)
    gx, gy = cv2.spatialGradient(green)
    energy = float(cv2.norm(gx, cv2.NORM_L2SQR) + cv2.norm(gy, cv2.NORM_L2SQR)) / green.size
    return energy / max(float(green.mean()), 1.0) ** 2


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes pictures of the full-size pages, each given with its geometry and its parts."""

    source: Source
    order: str
    meaning: Meaning
    cut: list[tuple[Page, Geometry, list[bytes]]]

    def coloured(self, plane: int) -> _Picture:
        """The picture whose red, green and blue are pages of their own."""
        planes = len(self.cut) // self.meaning.channels
        channels = []
        for channel in self.meaning.colours or ():
            number = self.meaning.page_of(channel, plane, planes)
            if not 0 <= number < len(self.cut):
                raise FieldSeparateChannels(f"{self.source.name}: channel {channel} is not in the file; {CONVERT}")
            values, _ = self._samples(number)
            channels.append(values)
        if {(values.shape, values.dtype) for values in channels} != {(channels[0].shape, channels[0].dtype)}:
            raise FieldSeparateChannels(f"{self.source.name}: its channels differ in size or depth; {CONVERT}")
        return self._finished(np.dstack(channels), self.cut[0][0], ["channels"])

    def picture(self, number: int) -> _Picture:
        """The picture of full-size page `number`."""
        page, geometry, _ = self.cut[number]
        photometric = page.number("photometric", _BLACK_IS_ZERO)
        self._check_colours(page, geometry, photometric)
        values, notes = self._samples(number)
        if photometric == _PALETTE:
            return self._finished(self._from_palette(page, geometry, values), page, ["palette"])
        if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
            if page.samples > 1:
                values = values[..., 0]
            if photometric == _WHITE_IS_ZERO:
                values = ~values
            return self._finished(values, page, [*notes, "greyscale"])
        return self._finished(values[..., :3], page, notes)

    def _check_colours(self, page: Page, geometry: Geometry, photometric: int) -> None:
        name = self.source.name
        if photometric == _CMYK:
            raise FieldCMYK(f"{name}: print colours (CMYK); {CONVERT}")
        extra = page.numbers.get("extra_samples", ())
        if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
            if page.samples > 2 or (page.samples == 2 and not set(extra) & set(_ALPHA)):
                raise FieldSeparateChannels(
                    f"{name}: {page.samples} channels, of which the file does not say which are red, green and blue;"
                    f" {CONVERT}"
                )
            if photometric == _WHITE_IS_ZERO and geometry.bits != 8:
                raise FieldUnsupportedMode(f"{name}: {geometry.bits}-bit inverted pixels; {CONVERT}")
        elif photometric == _PALETTE:
            if page.samples != 1 or geometry.bits > 8:
                raise FieldUnsupportedMode(f"{name}: a palette of {geometry.bits} bits; {CONVERT}")
        elif not (photometric == _RGB or (photometric == _YCBCR and geometry.compression == _JPEG)):
            raise FieldUnsupportedMode(f"{name}: colours of TIFF type {photometric}; {CONVERT}")
        elif page.samples < 3:
            raise FieldDamaged(f"{name}: colour pixels of {page.samples} values; {AGAIN}")

    def _samples(self, number: int) -> tuple[NDArray[Any], list[str]]:
        """The values of a page; its alpha channel is opaque."""
        page, geometry, parts = self.cut[number]
        values = decode_parts(self.source, page, self.order, geometry, parts)
        if geometry.bits < 8 and page.number("photometric", _BLACK_IS_ZERO) != _PALETTE:
            values = values * np.uint8(255 // (2**geometry.bits - 1))
        extra = page.numbers.get("extra_samples", ())
        plain = 3 if page.number("photometric", _BLACK_IS_ZERO) in (_RGB, _YCBCR) else 1
        if not extra and (plain, page.samples) == (3, 4):  # a fourth value that nothing is said about
            extra = (_ALPHA[0],)
        for sample, kind in zip(range(plain, page.samples), extra, strict=False):
            if kind in _ALPHA:
                if (values[..., sample] != 2**geometry.bits - 1).any():
                    raise FieldTransparent(f"{self.source.name}: some pixels are transparent; {CONVERT}")
                return values, ["alpha"]
        return values, []

    def _from_palette(self, page: Page, geometry: Geometry, values: NDArray[Any]) -> RGB:
        colours = page.numbers.get("colours", ())
        if len(colours) != 3 * 2**geometry.bits:
            raise FieldDamaged(f"{self.source.name}: a palette of {len(colours)} values; {AGAIN}")
        table = (np.array(colours, np.uint32).reshape(3, -1).T >> 8).astype(np.uint8)
        return np.asarray(table[values])

    def _finished(self, values: NDArray[Any], page: Page, notes: list[str]) -> _Picture:
        """8-bit colour, upright."""
        if values.dtype == np.uint16:
            notes = ["depth_16_bit", *notes]
            values = to_8_bit(values, self._stated_bits(page))
        orientation = page.number("orientation", 1)
        if orientation in range(2, 9):
            notes = [*notes, "orientation"]
            return _Picture(upright(as_rgb(values), orientation), notes)
        return _Picture(as_rgb(values), notes)

    def _stated_bits(self, page: Page) -> int | None:
        """Significant bits, where the file states fewer than 16."""
        packed = page.number("bits", 16)
        highest = max(page.numbers.get("max_sample", ()) + page.numbers.get("largest_sample", ()), default=0)
        stated = [bits for bits in (packed, self.meaning.bits or 16, highest.bit_length()) if 8 <= bits < 16]
        return min(stated, default=None)
