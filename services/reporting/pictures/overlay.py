"""Fields with what was found drawn on them, several to a sheet. Arrays in, one picture out; no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from services.imaging.types import RGB, Box, RejectedObject, RejectReason
from services.reporting.palette import (
    ALARM,
    INK,
    LEFT_OUT,
    ON_BORDER,
    PANEL,
    PAPER,
    REGION_COLOURS,
    Colour,
    lettering,
)
from services.reporting.pictures.heading import MARGIN, Heading, blank_sheet
from services.taxonomy import Region

FIELDS_PER_SHEET: Final = 12
TILE_PX: Final = 960
"""Longest side of a field on a sheet, pixels: a head is then about 70 pixels long at oil immersion."""
CAPTION_PX: Final = 34
GAP_PX: Final = 12

_LABEL_PX: Final = 15
_BITS: Final = 4  # fractions of a pixel in OpenCV's coordinates


@dataclass(frozen=True, slots=True)
class DrawnCell:
    """A classified cell, `counted` or not; `outline` is `[n, 2]` x, y in pixels of the field."""

    box: Box
    outline: NDArray[np.uint16] | None
    class_name: str
    region: Region
    confidence: float
    counted: bool = True


@dataclass(frozen=True, slots=True)
class DrawnField:
    """A field for a sheet. `pixels` is `None` where the picture could not be had; `trouble` then says why."""

    name: str
    pixels: RGB | None
    cells: Sequence[DrawnCell] = ()
    rejected: Sequence[RejectedObject] = ()
    trouble: str | None = None


class ContactSheet:
    """One sheet of up to 12 fields. Each is drawn when it is added, so that only one field is in memory at a time."""

    def __init__(self, fields: int, heading: Heading, aspect: float) -> None:
        """`aspect` is height ÷ width of the slide's fields."""
        self._columns = min(3, max(2, fields)) if fields != 4 else 2
        rows = -(-fields // self._columns)
        self._tile = (TILE_PX, round(TILE_PX * aspect)) if aspect <= 1 else (round(TILE_PX / aspect), TILE_PX)
        width = 2 * MARGIN + self._columns * (self._tile[0] + GAP_PX) - GAP_PX
        self._top = heading.height
        self._image = blank_sheet(width, self._top + rows * (self._tile[1] + CAPTION_PX + GAP_PX) + MARGIN, heading)
        self._used = 0

    def add(self, field: DrawnField) -> None:
        """Draw the next field."""
        row, column = divmod(self._used, self._columns)
        self._used += 1
        x = MARGIN + column * (self._tile[0] + GAP_PX)
        y = self._top + row * (self._tile[1] + CAPTION_PX + GAP_PX)
        self._image.paste(PANEL, (x, y, x + self._tile[0], y + self._tile[1] + CAPTION_PX))
        if field.pixels is not None:
            tile = draw_field(field, self._tile)
            self._image.paste(tile, (x + (self._tile[0] - tile.width) // 2, y + (self._tile[1] - tile.height) // 2))
        self._caption(field, x, y + self._tile[1] + CAPTION_PX // 2)

    def finish(self) -> Image.Image:
        """The sheet."""
        return self._image

    def _caption(self, field: DrawnField, x: int, y: int) -> None:
        draw = ImageDraw.Draw(self._image)
        border = sum(r.reason is RejectReason.BORDER for r in field.rejected)
        counted = sum(cell.counted for cell in field.cells)
        facts = [f"{counted} cells"]
        facts += [f"{len(field.cells) - counted} not counted"] if len(field.cells) > counted else []
        facts += [f"{border} on the border"] if border else []
        facts += [f"{len(field.rejected) - border} left out"] if len(field.rejected) > border else []
        line = f"{field.name}   {', '.join(facts)}"
        draw.text((x + 10, y), line, INK, lettering(17), "lm")
        if field.trouble:
            start = x + 10 + lettering(17).getlength(line) + 18
            draw.text((start, y), field.trouble, ALARM, lettering(17), "lm")


def draw_field(field: DrawnField, within: tuple[int, int]) -> Image.Image:
    """The field, shrunk to fit `within` (width, height), with its cells, cut heads and left-out objects.

    Raises:
        ValueError: the field has no pixels.
    """
    if field.pixels is None:
        raise ValueError(f"{field.name} has no pixels")
    height, width = field.pixels.shape[:2]
    scale = min(1.0, within[0] / width, within[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tile = np.ascontiguousarray(cv2.resize(field.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    left_out = [(_grown(found.box, 3 / scale), found.reason) for found in field.rejected]
    for box, reason in left_out:
        _dashed(tile, box, scale, ON_BORDER if reason is RejectReason.BORDER else LEFT_OUT)
    for cell in field.cells:
        colour = REGION_COLOURS[cell.region]
        outline = None if cell.outline is None or len(cell.outline) < 3 else cell.outline + 0.5
        if outline is not None:
            _polygon(tile, outline, scale, (255, 255, 255), 4)
            _polygon(tile, outline, scale, colour, 2)
        if cell.counted:
            _polygon(tile, _corners(cell.box), scale, colour, 2 if outline is None else 1)
        else:
            _dashed(tile, cell.box, scale, LEFT_OUT)
    picture = Image.fromarray(tile)
    labels = [
        _Label(cell.box, f"{cell.class_name} {cell.confidence:.2f}", REGION_COLOURS[cell.region])
        if cell.counted
        else _Label(cell.box, f"{cell.class_name}, not counted", None)
        for cell in field.cells
    ]
    labels += [_Label(box, reason, None) for box, reason in left_out if reason is not RejectReason.BORDER]
    _write(picture, labels, scale)
    return picture


def _grown(box: Box, by: float) -> Box:
    x0, y0, x1, y1 = box
    return Box(round(x0 - by), round(y0 - by), round(x1 + by), round(y1 + by))


def _corners(box: Box) -> NDArray[np.float64]:
    return np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]], np.float64)


def _polygon(
    tile: NDArray[np.uint8], points: NDArray[Any], scale: float, colour: Colour, thickness: int, *, closed: bool = True
) -> None:
    """`points` are continuous: pixel i covers i to i + 1."""
    shifted = np.round((np.asarray(points, np.float64) * scale - 0.5) * 2**_BITS).astype(np.int32)
    cv2.polylines(tile, [shifted.reshape(-1, 1, 2)], closed, colour, thickness, cv2.LINE_AA, _BITS)


def _dashed(tile: NDArray[np.uint8], box: Box, scale: float, colour: Colour) -> None:
    dash = 5 / scale
    corners = _corners(box)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.abs(end - start).sum())
        for at in np.arange(0, length, 2 * dash):
            piece = np.stack(
                [start + (end - start) * at / length, start + (end - start) * min(1, (at + dash) / length)]
            )
            _polygon(tile, piece, scale, colour, 1, closed=False)


@dataclass(frozen=True, slots=True)
class _Label:
    box: Box
    words: str
    ground: Colour | None


def _write(picture: Image.Image, labels: list[_Label], scale: float) -> None:
    """Write each label where it hides no object and no other label; where there is no room, only the colour speaks."""
    draw = ImageDraw.Draw(picture)
    taken = np.array([label.box for label in labels], np.float64).reshape(-1, 4) * scale
    for number, label in enumerate(labels):
        font = lettering(_LABEL_PX if label.ground else _LABEL_PX - 2)
        w, h = font.getlength(label.words) + 10, _LABEL_PX + 6
        x0, y0, x1, y1 = taken[number]
        middle = (x0 + x1 - w) / 2
        spots = [(x, y) for x in (x0, middle, x1 - w) for y in (y0 - h - 2, y1 + 2)]
        spots += [(x1 + 3, (y0 + y1 - h) / 2), (x0 - w - 3, (y0 + y1 - h) / 2)]
        for left, top in spots:
            right, bottom = left + w, top + h
            hidden = (taken[:, 0] < right) & (left < taken[:, 2]) & (taken[:, 1] < bottom) & (top < taken[:, 3])
            hidden[number] = False
            if left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height and not hidden.any():
                taken = np.vstack([taken, (left, top, right, bottom)])
                if label.ground:
                    draw.rounded_rectangle((left, top, right, bottom), 4, fill=label.ground)
                draw.text((left + 5, top + h / 2), label.words, PAPER if label.ground else LEFT_OUT, font, "lm")
                break
