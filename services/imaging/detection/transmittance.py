"""How much light a field lets through, against its own background: 255 is empty glass, whatever lamp and vignette."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.planes import Planes
from services.imaging.types import RGB

_GRID_UM: Final = 0.9  # the background is looked for among averages of this size: no single bright pixel decides
GRAIN_PX: Final = (5, 5)  # σ of a working pixel, by the one width that OpenCV has a way for
_REACH: Final = 11  # the brightest in 11 × 11 of them, 10 µm: more than a head is wide

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FlatField:
    """A field `pixels` `[h, w, 3]` shrunk to the working scale, `um_per_px`.

    `stained` `[h, w]` is 1 where it lets through less green than a share that was asked for; `background` is the empty
    glass, `[~h/10, ~w/10, 3]`; `shrink` is field pixels per working pixel, along x and y.
    """

    pixels: RGB
    stained: NDArray[np.uint8]
    background: RGB
    um_per_px: float
    shrink: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.stained.shape[0], self.stained.shape[1]

    def green(self, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """How much green light a part of the field lets through, of 255."""
        through = min(255.0, 255 / max(1.0, self.background_at(x + w / 2, y + h / 2)[1]))
        level = cv2.extractChannel(self.pixels[y : y + h, x : x + w], 1)
        return np.asarray(cv2.convertScaleAbs(level, alpha=through), np.uint8)

    def background_at(self, x: float, y: float) -> Colour:
        """The colour of empty glass around the working pixel x, y."""
        rows, columns = self.background.shape[:2]
        height, width = self.size
        row = min(rows - 1, max(0, int(y * rows / height)))
        column = min(columns - 1, max(0, int(x * columns / width)))
        red, green, blue = self.background[row, column].tolist()
        return red, green, blue


def flatten(planes: Planes, um_per_px: float, working_um_per_px: float, stained: float) -> FlatField:
    """Shrink a field `[H, W, 3]` to about `working_um_per_px` and hold it against its background.

    What lets less than the share `stained` of the green through, freed of grain, is stained.
    """
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
    least = cv2.resize(cv2.convertScaleAbs(cv2.extractChannel(background, 1), alpha=stained), size)
    smooth = cv2.GaussianBlur(cv2.extractChannel(small.pixels, 1), GRAIN_PX, 0)
    return FlatField(
        small.pixels,
        cv2.compare(smooth, least, cv2.CMP_LE).astype(np.uint8, copy=False),
        np.asarray(background, np.uint8),
        working_um_per_px,
        (width / size[0], height / size[1]),
    )
