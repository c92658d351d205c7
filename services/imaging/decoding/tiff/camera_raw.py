"""Raw files of cameras are TIFFs, in which only a preview is a picture: told by their own tags, and named."""

from typing import Final

from services.imaging.decoding.refusals import CONVERT, FieldFormatNotAllowed
from services.imaging.decoding.source import Source
from services.imaging.decoding.tiff.directory import Page, read_children

_OF_A_SENSOR: Final = (32803, 34892)  # photometric: a colour filter array, or its values made linear
_CANON: Final = b"CR"
_BY_MAKER: Final = {
    "canon": "Canon CR2",
    "nikon": "Nikon NEF",
    "sony": "Sony ARW",
    "pentax": "Pentax PEF",
    "samsung": "Samsung SRW",
    "hasselblad": "Hasselblad 3FR",
    "kodak": "Kodak DCR",
    "epson": "Epson ERF",
    "olympus": "Olympus ORF",
    "phase one": "Phase One IIQ",
}


def check_not_raw(source: Source, pages: list[Page]) -> None:
    """Refuse a file that holds what a sensor saw, which is no picture yet.

    Raises:
        FieldFormatNotAllowed
    """
    if "dng_version" in pages[0].numbers:
        kind = "DNG"
    else:
        canon = source.data[8:10] == _CANON
        pages = pages if canon else [*pages, *read_children(source, pages[0])]
        if not canon and not any(page.number("photometric", 0) in _OF_A_SENSOR for page in pages):
            return
        maker = "canon" if canon else pages[0].text("maker").lower()
        kind = next((kind for name, kind in _BY_MAKER.items() if maker.startswith(name)), "of an unknown maker")
    raise FieldFormatNotAllowed(f"{source.name}: a camera's raw file ({kind}) is not accepted; {CONVERT}")
