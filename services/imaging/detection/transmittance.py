"""How much light a field lets through, against its own background: 255 is empty glass, whatever lamp and vignette."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import Planes
from services.imaging.types import RGB

_GRID_UM: Final = 0.9  # the background is looked for among averages of this size: no single bright pixel decides
_GRAIN_PX: Final = (5, 5)  # σ of a working pixel, by the one width that OpenCV has a way for
_REACH: Final = 11  # the brightest in 11 × 11 of them, 10 µm: more than a head is wide

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FlatField:
    """A field shrunk to the working scale.

    `channels` are its red, green and blue `[h, w]` at `um_per_px`; `green` `[h, w]` is how much green light it lets
    through, of 255, and `smooth` the same freed of grain; `background` is the empty glass, `[~h/10, ~w/10, 3]`;
    `shrink` is field pixels per working pixel, along x and y.
    """

    channels: tuple[NDArray[np.uint8], ...]
    green: NDArray[np.uint8]
    smooth: NDArray[np.uint8]
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


def flatten(planes: Planes, um_per_px: float, working_um_per_px: float) -> FlatField:
    """Shrink a field `[H, W, 3]` to about `working_um_per_px` and divide by the background."""
    height, width = planes.pixels.shape[:2]
    factor = um_per_px / working_um_per_px
    if factor > 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        planes = Planes(np.asarray(cv2.resize(planes.pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8))
    small = planes.shrunk(1 / factor)
    size = small.pixels.shape[1], small.pixels.shape[0]
    coarse = (
        max(1, round(size[0] * working_um_per_px / _GRID_UM)),
        max(1, round(size[1] * working_um_per_px / _GRID_UM)),
    )
    grid = cv2.resize(small.shrunk(4).pixels, coarse, interpolation=cv2.INTER_AREA)
    background = cv2.GaussianBlur(
        cv2.morphologyEx(grid, cv2.MORPH_CLOSE, np.ones((_REACH, _REACH), np.uint8)), (0, 0), _REACH / 3
    )
    glass = cv2.resize(cv2.extractChannel(background, 1), size)
    green = np.asarray(cv2.divide(small.channels[1], glass, scale=255), np.uint8)
    return FlatField(
        small.channels,
        green,
        np.asarray(cv2.GaussianBlur(green, _GRAIN_PX, 0), np.uint8),
        np.asarray(background, np.uint8),
        working_um_per_px,
        (width / size[0], height / size[1]),
    )
