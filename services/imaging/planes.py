"""What several stages need of one field, made once: its red and its green, and the field at smaller scales.

On a field of a megapixel, taking a channel out or halving costs as much as many a measurement made on the result.
"""

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.types import RGB


class Planes:
    """A field `[H, W, 3]`, which must not be changed while this is used."""

    def __init__(self, pixels: RGB) -> None:
        self.pixels = pixels
        self._smaller: dict[tuple[int, int], Planes] = {}

    @cached_property
    def channels(self) -> tuple[NDArray[np.uint8], ...]:
        """Red, green and blue, `[H, W]` each: all three together cost OpenCV less than one of them alone."""
        return tuple(np.asarray(plane, np.uint8) for plane in cv2.split(self.pixels))

    @cached_property
    def absorbing(self) -> NDArray[np.uint8]:
        """The darker of red and green `[H, W]`: every sperm stain absorbs one of them."""
        red, green, _ = self.channels
        return np.asarray(cv2.min(red, green), np.uint8)

    def shrunk(self, factor: float) -> "Planes":
        """The field by `factor` smaller, averaged; itself where `factor` is not above 1."""
        if factor <= 1:
            return self
        if factor >= 4:  # OpenCV halves an image six times faster than it quarters it
            return self.shrunk(2).shrunk(factor / 2)
        size = max(1, round(self.pixels.shape[1] / factor)), max(1, round(self.pixels.shape[0] / factor))
        if size not in self._smaller:
            smaller = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)
            self._smaller[size] = Planes(np.asarray(smaller, np.uint8))
        return self._smaller[size]


def percentile_of(levels: NDArray[np.uint8], percent: float, where: NDArray[np.bool_] | None = None) -> float:
    """As NumPy's, by counting: grey levels are few. Of `levels` `[h, w]` only those `where` it is true, if given."""
    mask = None if where is None else where.view(np.uint8)
    below = np.cumsum(cv2.calcHist([levels], [0], mask, [256], (0, 256)))
    rank = (below[-1] - 1) * percent / 100
    lower, upper = np.searchsorted(below, [np.floor(rank), np.ceil(rank)], side="right")
    return float(lower + (upper - lower) * (rank % 1))
