"""Sprite sheets: the cells of a slide as the networks saw them, by class, the surest first. No I/O."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from services.imaging.types import Pixels
from services.reporting.palette import INK, PALE_INK, REGION_COLOURS, lettering
from services.reporting.pictures.heading import MARGIN, Heading, blank_sheet
from services.taxonomy import CLASSES, Language

CELLS_PER_SHEET: Final = 400
SPRITE_SHEETS: Final = 2
CROP_PX: Final = Pixels(112)
COLUMNS: Final = 16

_CAPTION_PX: Final = 18
_GAP_PX: Final = 6
_SECTION_PX: Final = 44


@dataclass(frozen=True, slots=True)
class Sprite:
    """A cell chosen for the sheets."""

    number: int
    class_index: int
    confidence: float


def quotas(counts: Mapping[int, int], room: int) -> dict[int, int]:
    """How many cells of each class fit into `room`: rare classes whole, the frequent ones share what is left."""
    left, given = room, dict[int, int]()
    waiting = sorted((n, index) for index, n in counts.items() if n)
    for position, (n, index) in enumerate(waiting):
        given[index] = min(n, left // (len(waiting) - position))
        left -= given[index]
    return given


def is_chosen(rank: int, cells: int, quota: int) -> bool:
    """Whether the cell of `rank` (from 0, by confidence) among `cells` is one of the `quota` spread evenly."""
    return (rank + 1) * quota // cells > rank * quota // cells


class SpriteSheets:
    """Sheets with a place for every chosen cell; crops may come in any order."""

    def __init__(self, sprites: list[Sprite], totals: Mapping[int, int], heading: Heading) -> None:
        """`sprites` by class, then falling confidence; `totals` are the slide's cells by class index."""
        self._totals = totals
        self._shown = Counter(sprite.class_index for sprite in sprites)
        self._place: dict[int, tuple[int, int, int]] = {}
        self._sheets: list[Image.Image] = []
        for start in range(0, len(sprites), CELLS_PER_SHEET):
            self._lay_out(sprites[start : start + CELLS_PER_SHEET], heading, start // CELLS_PER_SHEET)

    def _lay_out(self, sprites: list[Sprite], heading: Heading, sheet: int) -> None:
        by_class: dict[int, list[Sprite]] = {}
        for sprite in sprites:
            by_class.setdefault(sprite.class_index, []).append(sprite)
        line = CROP_PX + _CAPTION_PX + _GAP_PX
        rows = sum(-(-len(members) // COLUMNS) for members in by_class.values())
        width = 2 * MARGIN + COLUMNS * (CROP_PX + _GAP_PX) - _GAP_PX
        image = blank_sheet(width, heading.height + len(by_class) * _SECTION_PX + rows * line + MARGIN, heading)
        draw = ImageDraw.Draw(image)
        y = heading.height
        for index, members in by_class.items():
            self._section(draw, y, index, heading.language)
            y += _SECTION_PX
            for position, sprite in enumerate(members):
                row, column = divmod(position, COLUMNS)
                x, top = MARGIN + column * (CROP_PX + _GAP_PX), y + row * line
                self._place[sprite.number] = sheet, x, top
                words = f"{sprite.confidence:.2f}"
                draw.text((x + 1, top + CROP_PX + 10), words, INK, lettering(14), "lm")
                draw.text((x + CROP_PX - 1, top + CROP_PX + 10), f"#{sprite.number}", PALE_INK, lettering(13), "rm")
            y += -(-len(members) // COLUMNS) * line
        self._sheets.append(image)

    def _section(self, draw: ImageDraw.ImageDraw, y: int, index: int, language: Language) -> None:
        total = sum(self._totals.values())
        here, shown = self._totals[index], self._shown[index]
        name = CLASSES[index].display(language)
        draw.rectangle((MARGIN, y + 12, MARGIN + 6, y + 34), fill=REGION_COLOURS[CLASSES[index].region])
        draw.text((MARGIN + 16, y + 23), name, INK, lettering(21), "lm")
        facts = f"{here} cells, {100 * here / total:.1f} %" + (f"; {shown} shown" if shown < here else "")
        draw.text((MARGIN + 30 + lettering(21).getlength(name), y + 24), facts, PALE_INK, lettering(17), "lm")

    def add(self, number: int, crop: NDArray[np.uint8]) -> None:
        """Put the crop `[112, 112, 3]` of a chosen cell in its place."""
        sheet, x, y = self._place[number]
        self._sheets[sheet].paste(Image.fromarray(crop), (x, y))

    def finish(self) -> Iterator[Image.Image]:
        """The sheets; a cell whose crop never came has an empty place."""
        yield from self._sheets
