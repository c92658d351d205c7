"""The heading of a picture: whose it is, what its colours mean, and the warning that must stand first."""

from dataclasses import dataclass
from typing import Final, Self

from PIL import Image, ImageDraw

from services.reporting.palette import (
    ALARM,
    INK,
    LEFT_OUT,
    ON_BORDER,
    PALE_INK,
    PAPER,
    REGION_COLOURS,
    WARNING_GROUND,
    Colour,
    lettering,
)
from services.reporting.report import Report, SlideReport
from services.stains import stain_name
from services.taxonomy import REGION_NAMES, Language

MARGIN: Final = 24
HEADING_HEIGHT: Final = 96
WARNING_HEIGHT: Final = 44
JPEG_QUALITY: Final = 88


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above a picture. `warning` is printed first and cannot be overlooked.

    `marks`: the legend also explains the marks of what was not classified.
    """

    title: str
    subtitle: str
    warning: str | None = None
    marks: bool = True
    language: Language = "en"

    @classmethod
    def of(cls, report: Report, slide: SlideReport, part: str, *, marks: bool, language: Language) -> Self:
        """The heading of one picture of a slide; `part` ends the subtitle."""
        return cls(
            title=f"{report.lab} / {report.batch_id} / {slide.slide_id}",
            subtitle=f"{stain_name(slide.stain)}, {slide.um_per_px:g} µm/px, {slide.cells} cells,"
            f" release {slide.release_id}{part}",
            warning=report.warning,
            marks=marks,
            language=language,
        )

    @property
    def height(self) -> int:
        """Pixels that the heading takes."""
        return HEADING_HEIGHT + (WARNING_HEIGHT if self.warning else 0)


def blank_sheet(width: int, height: int, heading: Heading) -> Image.Image:
    """A sheet of paper with its heading; the rest, from `heading.height` on, is for the caller."""
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    if heading.warning:
        draw.rectangle((0, 0, width, WARNING_HEIGHT), fill=WARNING_GROUND)
        size = fitting_size(heading.warning, 24, width - 2 * MARGIN)
        draw.text((MARGIN, WARNING_HEIGHT // 2), heading.warning, ALARM, lettering(size), anchor="lm")
        top = WARNING_HEIGHT
    draw.text(
        (MARGIN, top + 34), heading.title, INK, lettering(fitting_size(heading.title, 28, width - 2 * MARGIN)), "lm"
    )
    draw.text((MARGIN, top + 70), heading.subtitle, PALE_INK, lettering(18), "lm")
    _legend(draw, width, top + 70, heading)
    return sheet


def fitting_size(line: str, size: int, width: int) -> int:
    """The largest letter height, at most `size` pixels, at which `line` is no wider than `width`."""
    return next((s for s in range(size, 10, -1) if lettering(s).getlength(line) <= width), 10)


def _legend(draw: ImageDraw.ImageDraw, width: int, y: int, heading: Heading) -> None:
    """Right of the subtitle where there is room for it."""
    font = lettering(17)
    entries: list[tuple[str, Colour]] = [(REGION_NAMES[r][heading.language], REGION_COLOURS[r]) for r in REGION_COLOURS]
    if heading.marks:
        entries += [("cut by the border, not classified", ON_BORDER), ("left out", LEFT_OUT)]
    length = sum(int(font.getlength(label)) + 48 for label, _ in entries)
    x = width - MARGIN - length
    if x < MARGIN + lettering(18).getlength(heading.subtitle) + 32:
        return
    for label, colour in entries:
        thin = colour in (ON_BORDER, LEFT_OUT)
        draw.rectangle((x, y - 8, x + 16, y + 8), None if thin else colour, colour, 2 if thin else 0)
        draw.text((x + 24, y), label, INK, font, "lm")
        x += int(font.getlength(label)) + 48
