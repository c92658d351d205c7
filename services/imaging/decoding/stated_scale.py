"""The scale that a file states of itself, to hold `um_per_px` against. Most files state none, or one of a printer.

Programs write a density where they know none: 72, 96, 150, 300 dots an inch. Those are 85 µm a pixel and more, which no
microscope has; nor has one exactly 1 µm, or 1 pixel, which stands for "not calibrated".
"""

import html
import re
import struct
from collections.abc import Callable
from typing import Final

from services.imaging.decoding.refusals import FieldRefused
from services.imaging.decoding.source import Source
from services.imaging.decoding.tiff.directory import Page, read_pages

_OF_A_MICROSCOPE: Final = (0.005, 1.5)  # µm a pixel: a 150x objective in front of small pixels, a 5x one
_NOT_CALIBRATED: Final = 1.0
_SQUARE: Final = 0.01  # how much the scales across and down may differ
_INCH, _CM, _METRE = 25_400.0, 10_000.0, 1_000_000.0
_UNITS: Final = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m", "\ufffdm"), 1.0),
    **{"nm": 0.001, "mm": 1000.0, "cm": _CM, "m": _METRE, "in": _INCH, "inch": _INCH, "Å": 0.0001, "pm": 1e-6},
}
_NUMBER: Final = r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)"
_PIXELS: Final = re.compile(r"<(?:\w+:)?Pixels\b([^<>]*)>")
_IMAGEJ_UNIT: Final = re.compile(r"^unit=(.+)$", re.MULTILINE)


def stated_um_per_px(source: Source, kind: str) -> float | None:
    """Micrometres a pixel, as the file `source` of format `kind` says, or None; a damaged statement is none.

    TIFF: OME's PhysicalSizeX, ImageJ's unit, the resolution tags. PNG: pHYs. JPEG: JFIF's density. BMP: its header.
    """
    try:
        across, down = _READERS[kind](source)
    except (FieldRefused, ValueError, ZeroDivisionError, struct.error):
        return None
    low, high = _OF_A_MICROSCOPE
    if not low <= across <= high or across == _NOT_CALIBRATED or abs(across - down) > _SQUARE * across:
        return None
    return across


def _of_jpeg(source: Source) -> tuple[float, float]:
    if source.data[2:4] != b"\xff\xe0" or source.data[6:11] != b"JFIF\0":
        raise ValueError
    unit, across, down = struct.unpack_from(">BHH", source.data, 13)
    um = {1: _INCH, 2: _CM}.get(unit, 0.0)
    return um / across, um / down


def _of_png(source: Source) -> tuple[float, float]:
    at = source.data.find(b"pHYs", 8, source.data.find(b"IDAT"))
    if at < 0:
        raise ValueError
    across, down, unit = struct.unpack_from(">IIB", source.data, at + 4)
    um = _METRE if unit == 1 else 0.0
    return um / across, um / down


def _of_bmp(source: Source) -> tuple[float, float]:
    if struct.unpack_from("<I", source.data, 14)[0] < 40:
        raise ValueError
    across, down = struct.unpack_from("<ii", source.data, 38)
    return _METRE / across, _METRE / down


def _of_tiff(source: Source) -> tuple[float, float]:
    _, pages = read_pages(source)
    text = pages[0].text("description")
    if found := _PIXELS.search(text):
        return _of_ome(found[1], "X"), _of_ome(found[1], "Y")
    page = max(pages, key=lambda page: page.size[0] * page.size[1])
    unit = _IMAGEJ_UNIT.search(text) if "ImageJ=" in text else None
    of_the_tag = {2: _INCH, 3: _CM}.get(page.number("resolution_unit", 2), 0.0)
    um = _UNITS.get(unit[1].strip(), 0.0) if unit else of_the_tag
    return um * _pixel(page, "x_resolution"), um * _pixel(page, "y_resolution")


def _of_ome(pixels: str, axis: str) -> float:
    size = re.search(rf"\bPhysicalSize{axis}\s*=\s*[\"']{_NUMBER}[\"']", pixels)
    unit = re.search(rf"\bPhysicalSize{axis}Unit\s*=\s*[\"']([^\"']*)[\"']", pixels)
    if size is None:
        raise ValueError
    return float(size[1]) * _UNITS.get(html.unescape(unit[1]) if unit else "µm", 0.0)


def _pixel(page: Page, name: str) -> float:
    """One pixel, in the unit of the resolution, which is a fraction of pixels per unit."""
    pixels, units = page.numbers.get(name, (0, 0))
    return units / pixels


_READERS: Final[dict[str, Callable[[Source], tuple[float, float]]]] = {
    "JPEG": _of_jpeg,
    "PNG": _of_png,
    "BMP": _of_bmp,
    "TIFF": _of_tiff,
}
