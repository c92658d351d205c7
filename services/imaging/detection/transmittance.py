"""How much light a field lets through, against its own background: 255 is empty glass, whatever lamp and vignette."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.types import RGB

_GRID_UM: Final = 0.9  # the background is looked for among averages of this size: no single bright pixel decides
_REACH: Final = 11  # the brightest in 11 × 11 of them, 10 µm: more than a head is wide

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FlatField:
    """A field shrunk to the working scale.

    `pixels` is `[h, w, 3]` at `um_per_px`, and `green` `[h, w]` how much green light it lets through, of 255;
    `background` is the empty glass, `[~h/10, ~w/10, 3]`; `shrink` is field pixels per working pixel, along x and y.
    """

    pixels: RGB
    green: NDArray[np.uint8]
    background: RGB
    um_per_px: float
    shrink: tuple[float, float]

    def background_at(self, x: float, y: float) -> Colour:
        """The colour of empty glass around the working pixel x, y."""
        rows, columns = self.background.shape[:2]
        height, width = self.green.shape
        row = min(rows - 1, max(0, int(y * rows / height)))
        column = min(columns - 1, max(0, int(x * columns / width)))
        red, green, blue = self.background[row, column].tolist()
        return red, green, blue


def flatten(pixels: RGB, um_per_px: float, working_um_per_px: float) -> FlatField:
    """Shrink `pixels` `[H, W, 3]` to about `working_um_per_px` and divide by the background."""
    height, width = pixels.shape[:2]
    factor = um_per_px / working_um_per_px
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = pixels
    if size != (width, height):
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)
    coarse = (
        max(1, round(size[0] * working_um_per_px / _GRID_UM)),
        max(1, round(size[1] * working_um_per_px / _GRID_UM)),
    )
    # By way of half and a quarter of the size: five times faster.
    half = cv2.resize(small, (max(1, size[0] // 2), max(1, size[1] // 2)), interpolation=cv2.INTER_AREA)
    quarter = cv2.resize(half, (max(1, size[0] // 4), max(1, size[1] // 4)), interpolation=cv2.INTER_AREA)
    grid = cv2.resize(quarter, coarse, interpolation=cv2.INTER_AREA)
    background = cv2.GaussianBlur(
        cv2.morphologyEx(grid, cv2.MORPH_CLOSE, np.ones((_REACH, _REACH), np.uint8)), (0, 0), _REACH / 3
    )
    glass = cv2.resize(cv2.extractChannel(background, 1), size)
    green = np.asarray(cv2.divide(cv2.extractChannel(small, 1), glass, scale=255), np.uint8)
    return FlatField(
        small,
        green,
        np.asarray(background, np.uint8),
        working_um_per_px,
        (width / size[0], height / size[1]),
    )
