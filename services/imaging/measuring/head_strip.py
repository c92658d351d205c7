"""The heads of a field one below the other: an operation on all of them costs little more than on one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.tracing import Closeup, up_to_vector

_GLASS: Final = 255


@dataclass(frozen=True, slots=True)
class HeadStrip:
    """`grey` transmittance and `mask` of 0 and 1, both `[n * height, width]`; head k begins at row `k * height`."""

    grey: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    height: int
    um_per_px: float

    def halved(self) -> "HeadStrip":
        """The same heads at half the resolution: enough for levels and directions, in a quarter of the time."""
        size = self.mask.shape[1] // 2, self.mask.shape[0] // 2
        grey, mask = (
            np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
            for whole in (self.grey, self.mask)
        )
        return HeadStrip(grey, mask, self.height // 2, 2 * self.um_per_px)


def lay_out(heads: Sequence[Closeup], apart: int) -> HeadStrip:
    """All of each close-up, with `apart` rows of empty glass or more below it."""
    height = max(head.mask.shape[0] for head in heads) + apart
    width = max(head.mask.shape[1] for head in heads)
    return _filled(
        [(head.grey, head.mask) for head in heads], height + height % 2, width + width % 2, heads[0].um_per_px
    )


def lay_out_tightly(heads: Sequence[Closeup]) -> HeadStrip:
    """The heads with a pixel around them, without what surrounds them."""
    cuts = []
    for head in heads:
        x, y, w, h = cv2.boundingRect(head.contour)
        here = slice(max(0, y - 1), y + h + 1), slice(max(0, x - 1), x + w + 1)
        cuts.append((head.grey[here], head.mask[here]))
    height, width = max(len(grey) for grey, _ in cuts), max(grey.shape[1] for grey, _ in cuts)
    return _filled(cuts, height, up_to_vector(width), heads[0].um_per_px)


def _filled(
    cuts: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], height: int, width: int, um_per_px: float
) -> HeadStrip:
    grey = np.full((len(cuts) * height, width), _GLASS, np.uint8)
    mask = np.zeros_like(grey)
    for k, (cut_grey, cut_mask) in enumerate(cuts):
        here = slice(k * height, k * height + len(cut_grey)), slice(0, cut_grey.shape[1])
        grey[here], mask[here] = cut_grey, cut_mask
    return HeadStrip(grey, mask, height, um_per_px)
