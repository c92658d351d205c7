"""Colours of the regions and the lettering of the pictures."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageFont

from services.taxonomy import Region

Colour = tuple[int, int, int]

_FONT: Final = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"

# Told apart by people who confuse red and green, and away from the violets and blues of the stains.
REGION_COLOURS: Final[dict[Region, Colour]] = {
    Region.NORMAL: (0, 135, 90),
    Region.HEAD: (214, 72, 0),
    Region.NECK: (150, 30, 130),
    Region.TAIL: (0, 98, 190),
}
INK: Final[Colour] = (28, 32, 38)
PALE_INK: Final[Colour] = (104, 112, 122)
PAPER: Final[Colour] = (255, 255, 255)
PANEL: Final[Colour] = (241, 243, 245)
LEFT_OUT: Final[Colour] = (96, 100, 108)
ON_BORDER: Final[Colour] = (20, 22, 26)
ALARM: Final[Colour] = (170, 20, 20)
WARNING_GROUND: Final[Colour] = (255, 221, 120)


@lru_cache(maxsize=8)
def lettering(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at `size` pixels: Latin, Greek and Cyrillic, as slides and files are named anywhere in Europe.

    It is shipped, as a server has no fonts, and Pillow's own has ASCII only.

    Raises:
        OSError: this Pillow was built without FreeType; install its wheel to have pictures.
    """
    return ImageFont.truetype(_FONT, size)
