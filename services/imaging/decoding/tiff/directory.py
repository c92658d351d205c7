"""The pages of a TIFF: only those of their tags that decoding needs are read, and only those have to be right."""

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.imaging.decoding.refusals import AGAIN, FieldDamaged, FieldRefused, FieldTooManyPages
from services.imaging.decoding.source import MAX_PARTS, Source

MAX_PAGES: Final = 64
"""Focal planes in one TIFF; a longer stack is not a field of a routine slide, and each page costs a decode."""

_MOST_ENTRIES: Final = 4096
_MOST_TEXT: Final = 2**20
_LETTERS: Final = {
    1: ("B", 1),
    3: ("H", 2),
    4: ("I", 4),
    5: ("II", 8),
    7: ("B", 1),
    13: ("I", 4),
    16: ("Q", 8),
    18: ("Q", 8),
}
_TEXTS: Final = (1, 2, 7)

# Tags by number, and how many values are read at most; 0 is a text.
_NUMBERS: Final = {
    "subfile": (254, 1),
    "width": (256, 1),
    "height": (257, 1),
    "bits": (258, 32),
    "compression": (259, 1),
    "photometric": (262, 1),
    "fill_order": (266, 1),
    "strip_offsets": (273, MAX_PARTS),
    "orientation": (274, 1),
    "samples": (277, 1),
    "rows_per_strip": (278, 1),
    "strip_bytes": (279, MAX_PARTS),
    "max_sample": (281, 32),
    "x_resolution": (282, 1),
    "y_resolution": (283, 1),
    "planar": (284, 1),
    "resolution_unit": (296, 1),
    "predictor": (317, 1),
    "colours": (320, 3 * 256),
    "tile_width": (322, 1),
    "tile_height": (323, 1),
    "tile_offsets": (324, MAX_PARTS),
    "tile_bytes": (325, MAX_PARTS),
    "children": (330, 16),
    "extra_samples": (338, 32),
    "sample_format": (339, 32),
    "largest_sample": (341, 32),
    "dng_version": (50706, 4),
}
_PARTS: Final = ("strip_offsets", "strip_bytes", "tile_offsets", "tile_bytes")
# These help where they can be read; a picture is whole without them.
_OPTIONAL: Final = frozenset(
    {
        *("max_sample", "largest_sample", "orientation", "subfile", "children", "dng_version"),
        *("x_resolution", "y_resolution", "resolution_unit"),
    }
)
_TEXT_TAGS: Final = {"description": 270, "maker": 271, "page_name": 285, "jpeg_tables": 347, "imagej": 50839}
_NAME_OF: Final = {number: name for name, (number, _) in _NUMBERS.items()}
_TEXT_OF: Final = {number: name for name, number in _TEXT_TAGS.items()}


@dataclass(frozen=True, slots=True)
class Page:
    """One directory. `numbers` and `texts` hold the tags that it has, by the names above."""

    index: int
    numbers: dict[str, tuple[int, ...]]
    texts: dict[str, bytes]

    def number(self, name: str, default: int) -> int:
        """The tag's first value, where it has one."""
        values = self.numbers.get(name)
        return values[0] if values else default

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.number("width", 0), self.number("height", 0)

    @property
    def samples(self) -> int:
        """Values of a pixel."""
        return self.number("samples", 1)

    def text(self, name: str) -> str:
        """A text tag; empty where there is none."""
        return self.texts.get(name, b"").split(b"\0")[0].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order, and where classic TIFF and BigTIFF differ."""

    order: str
    big: bool

    @property
    def pointer(self) -> str:
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def entry(self) -> str:
        return f"{self.order}HH{'QQ' if self.big else 'II'}"


def read_pages(source: Source) -> tuple[str, list[Page]]:
    """The byte order (`<` or `>`) and the pages of the file, at most 64.

    Raises:
        FieldTruncated, FieldDamaged, FieldTooManyPages, FieldTooManyParts
    """
    layout = _layout(source)
    pages: list[Page] = []
    parts = 0
    for at in _directories(source, layout):
        if len(pages) == MAX_PAGES:
            raise FieldTooManyPages(
                f"{source.name}: more than {MAX_PAGES} pages; send the field's planes only and requeue the slide"
            )
        pages.append(_read_page(source, layout, at, len(pages)))
        parts += sum(len(pages[-1].numbers.get(name, ())) for name in _PARTS)
        source.check_parts(parts // 2, "strips or tiles")
    if not pages:
        raise FieldDamaged(f"{source.name}: a TIFF without a page; {AGAIN}")
    return layout.order, pages


def read_children(source: Source, page: Page) -> list[Page]:
    """The directories below `page` (SubIFDs) that can be read; no picture is looked for there."""
    children = []
    for at in page.numbers.get("children", ()):
        with contextlib.suppress(FieldRefused):
            children.append(_read_page(source, _layout(source), at, page.index))
    return children


def _layout(source: Source) -> _Layout:
    return _Layout("<" if source.data[:1] == b"I" else ">", source.data[2:4] in (b"+\0", b"\0+"))


def _directories(source: Source, layout: _Layout) -> Iterator[int]:
    """Where the entries of each directory begin; a chain that comes back to itself has ended."""
    seen: set[int] = set()
    link = 8 if layout.big else 4
    while True:
        at = _unpack(source, layout.pointer, link)[0]
        if at == 0 or at in seen:
            return
        seen.add(at)
        yield at
        entries, begin = _entries(source, layout, at)
        link = begin + entries * struct.calcsize(layout.entry)


def _entries(source: Source, layout: _Layout, at: int) -> tuple[int, int]:
    letter = f"{layout.order}{'Q' if layout.big else 'H'}"
    (entries,) = _unpack(source, letter, at)
    if entries > _MOST_ENTRIES:
        raise FieldDamaged(f"{source.name}: a TIFF page of {entries:,} tags; {AGAIN}")
    return entries, at + struct.calcsize(letter)


def _read_page(source: Source, layout: _Layout, at: int, index: int) -> Page:
    numbers: dict[str, tuple[int, ...]] = {}
    texts: dict[str, bytes] = {}
    entries, begin = _entries(source, layout, at)
    step = struct.calcsize(layout.entry)
    inline = struct.calcsize(layout.pointer)
    for entry in range(begin, begin + entries * step, step):
        tag, kind, count, value = _unpack(source, layout.entry, entry)
        if tag in _TEXT_OF and kind in _TEXTS:
            place = entry + step - inline if count <= inline else value
            if _TEXT_OF[tag] == "jpeg_tables" and place + count > len(source.data):
                raise source.ends_early("TIFF")
            texts[_TEXT_OF[tag]] = source.data[place : place + min(count, _MOST_TEXT)]
        elif tag in _NAME_OF and kind in _LETTERS and count:
            name = _NAME_OF[tag]
            most = _NUMBERS[name][1]
            if name in _PARTS:
                source.check_parts(count, "strips or tiles")
            letter, size = _LETTERS[kind]
            form = f"{layout.order}{min(count, most)}{letter}"
            place = entry + step - inline if count * size <= inline else value
            if name in _OPTIONAL and place + struct.calcsize(form) > len(source.data):
                continue
            numbers[name] = _unpack(source, form, place)
    return Page(index, numbers, texts)


def _unpack(source: Source, form: str, at: int) -> tuple[int, ...]:
    if at + struct.calcsize(form) > len(source.data):
        raise source.ends_early("TIFF")
    return struct.unpack_from(form, source.data, at)
