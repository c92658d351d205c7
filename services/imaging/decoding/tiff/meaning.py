"""What the pages of a TIFF are to each other: focal planes, times or colour channels, by what the file says."""

import re
from dataclasses import dataclass, field
from typing import Final

from services.imaging.decoding.refusals import (
    CONVERT,
    SINGLE_FIELDS,
    FieldAnimated,
    FieldSeparateChannels,
    FieldTooManyPages,
)
from services.imaging.decoding.source import Source
from services.imaging.decoding.tiff.directory import Page

_AMBIGUOUS: Final = range(2, 5)  # so many grey pages without a word may be channels as well as planes

_PIXELS: Final = re.compile(r"<(?:\w+:)?Pixels\b([^<>]*)>")
_CHANNEL: Final = re.compile(r"<(?:\w+:)?Channel\b([^<>]*)>")
_PLACE: Final = re.compile(r"<(?:\w+:)?TiffData\b([^<>]*)>")
_ATTRIBUTE: Final = re.compile(r"""(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_IMAGEJ: Final = re.compile(r"^(channels|slices|frames|images)=(\d+)", re.MULTILINE)
_SHAPED: Final = re.compile(r'"axes"\s*:\s*"([A-Z]+)"')
_COLOURS: Final = (
    re.compile(r"(?i)\b(r|red|rot|rouge|rojo|rosso)\b"),
    re.compile(r"(?i)\b(g|green|gr[uü]n|vert|verde)\b"),
    re.compile(r"(?i)\b(b|blue|blau|bleu|azul|blu)\b"),
)
_OME_COLOURS: Final = (0xFF0000, 0x00FF00, 0x0000FF)


@dataclass(frozen=True, slots=True)
class Meaning:
    """`channels` × `planes` × `times` pages; `colours` are the channels that are red, green and blue, where known.

    `places` is the page of each channel of each plane; without it they come in `order`, its first letter fastest.
    `pictures` counts the pictures that the file describes, which may be of other fields.
    """

    channels: int = 1
    planes: int | None = None
    times: int = 1
    colours: tuple[int, int, int] | None = None
    bits: int | None = None
    order: str = "CZT"
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    stated: bool = False
    pictures: int = 1

    def page_of(self, channel: int, plane: int, planes: int) -> int:
        """The number, among the full-size pages, of one channel of one plane."""
        if self.places:
            return self.places.get((channel, plane), -1)
        return (
            plane * self.channels + channel
            if self.order.index("C") < self.order.index("Z")
            else (channel * planes + plane)
        )


def read_meaning(page: Page) -> Meaning:
    """From the first page's description: OME-XML, ImageJ, or the axes that tifffile writes."""
    text = page.text("description")
    if found := _PIXELS.search(text):
        return _of_ome(text, _attributes(found[1]), page.samples)
    if text.startswith("ImageJ") or "\nImageJ=" in text:
        return _of_imagej(page, {name: int(number) for name, number in _IMAGEJ.findall(text)})
    if found := _SHAPED.search(text):
        return Meaning(channels=2 if "C" in found[1] else 1, times=2 if "T" in found[1] else 1, stated=True)
    return Meaning()


def _attributes(text: str) -> dict[str, str]:
    return {name: one or other for name, one, other in _ATTRIBUTE.findall(text)}


def _number(attributes: dict[str, str], name: str, default: int) -> int:
    value = attributes.get(name, "")
    return int(value) if re.fullmatch(r"-?\d{1,10}", value) else default


def _of_ome(text: str, pixels: dict[str, str], samples: int) -> Meaning:
    listed = [_attributes(found) for found in _CHANNEL.findall(text)]
    channels = max(1, _number(pixels, "SizeC", 1) // max(1, samples))
    order = "".join(letter for letter in pixels.get("DimensionOrder", "XYCZT") if letter in "CZT")
    places = {}
    for found in _PLACE.findall(text):
        place = _attributes(found)
        if "IFD" in place and ("FirstC" in place or "FirstZ" in place):
            places[_number(place, "FirstC", 0), _number(place, "FirstZ", 0)] = _number(place, "IFD", -1)
    planes = _number(pixels, "SizeZ", 1)
    return Meaning(
        channels,
        planes,
        _number(pixels, "SizeT", 1),
        _colours(listed) if channels == 3 else None,
        _number(pixels, "SignificantBits", 0) or None,
        order if sorted(order) == ["C", "T", "Z"] else "CZT",
        places if len(places) == channels * planes else {},
        stated=True,
        pictures=len(_PIXELS.findall(text)),
    )


def _colours(channels: list[dict[str, str]]) -> tuple[int, int, int] | None:
    """Which channel is red, which green, which blue: by name, else by the colour it is shown in."""
    names = [channel.get("Name", "") for channel in channels]
    shown = [_number(channel, "Color", 0) >> 8 & 0xFFFFFF for channel in channels]
    for found in (
        [[k for k, name in enumerate(names) if colour.search(name)] for colour in _COLOURS],
        [[k for k, value in enumerate(shown) if value == colour] for colour in _OME_COLOURS],
    ):
        if all(len(which) == 1 for which in found) and len({which[0] for which in found}) == 3:
            return found[0][0], found[1][0], found[2][0]
    return None


def _of_imagej(page: Page, sizes: dict[str, int]) -> Meaning:
    channels, planes, times = (max(1, sizes.get(name, 1)) for name in ("channels", "slices", "frames"))
    labels = page.texts.get("imagej", b"")
    if channels == 1 and planes == 3 and all(_in_either_order(label, labels) for label in ("Red", "Green", "Blue")):
        channels, planes = 3, 1  # ImageJ's "RGB stack" calls its channels slices
    return Meaning(channels, planes if channels * planes * times > 1 else None, times, stated=True)


def _in_either_order(label: str, labels: bytes) -> bool:
    return label.encode("utf-16-le") in labels or label.encode("utf-16-be") in labels


def check_pages(source: Source, meaning: Meaning, pages: list[Page]) -> None:
    """Refuse pages that are not focal planes of one field, nor its red, green and blue.

    Raises:
        FieldAnimated, FieldSeparateChannels, FieldTooManyPages
    """
    if meaning.pictures > 1 and len(pages) > 1:
        raise FieldTooManyPages(f"{source.name}: {meaning.pictures} pictures of the same size; {SINGLE_FIELDS}")
    if meaning.times > 1:
        raise FieldAnimated(f"{source.name}: a time series; send the one frame that is the field and requeue")
    if meaning.channels > 1 and (meaning.colours is None or len(pages) != 3 * (meaning.planes or 1)):
        raise FieldSeparateChannels(
            f"{source.name}: its colour channels are separate, and the file does not say which of its {len(pages)}"
            f" page(s) are red, green and blue; {CONVERT}"
        )
    grey = all(page.samples == 1 and page.number("photometric", 1) in (0, 1) for page in pages)
    named = [page.text("page_name") for page in pages]
    coloured = len(pages) > 1 and grey and all(any(c.search(name) for c in _COLOURS) for name in named)
    if coloured or (not meaning.stated and grey and len(pages) in _AMBIGUOUS):
        raise FieldSeparateChannels(
            f"{source.name}: {len(pages)} grey pages may be focal planes or colour channels, and the file does not say"
            f" which; {CONVERT}"
        )
