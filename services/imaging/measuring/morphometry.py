"""The measures of one head, after the definitions of the CASA morphology modules."""

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.tracing import Closeup
from services.imaging.measuring.head_strip import lay_out, lay_out_tightly
from services.imaging.measuring.parts import (
    FARTHEST_MIDPIECE_UM,
    Midpiece,
    acrosomes,
    long_axes,
    midpieces,
    vacuole_shares,
)
from services.imaging.types import Microns, Morphometry

_AT_ONCE: Final = 64  # heads: a field of thousands is measured in as little memory
_CURVE_UM: Final = 0.3  # the outline of pixels is a staircase: its perimeter is taken after smoothing over this length


def measure(heads: Sequence[Closeup]) -> list[Morphometry]:
    """All measures of `heads`, which have the same scale; what cannot be seen on a head is None.

    Length and width are the sides of the minimum-area rectangle. Elongation is (L - W) / (L + W), roughness 4πA / P²,
    regularity πLW / 4A. The share of vacuoles is None where no acrosome is seen: in so dark a head none would be.
    """
    measures = []
    for first in range(0, len(heads), _AT_ONCE):
        measures += _measured(heads[first : first + _AT_ONCE])
    return measures


def _measured(heads: Sequence[Closeup]) -> list[Morphometry]:
    # Far enough apart for no pixel to be nearer to the next head than to its own, within the reach of a midpiece.
    strip = lay_out(heads, math.ceil(FARTHEST_MIDPIECE_UM / heads[0].um_per_px)).halved()
    axes = long_axes(strip)
    shares, fronts = acrosomes(strip, axes)
    tails = midpieces(strip, axes, fronts)
    with_front = [head for head, share in zip(heads, shares, strict=True) if share is not None]
    vacuoles = iter(vacuole_shares(lay_out_tightly(with_front)) if with_front else [])
    return [
        _measures(head, share, None if share is None else next(vacuoles), tail)
        for head, share, tail in zip(heads, shares, tails, strict=True)
    ]


def _measures(
    head: Closeup, acrosome_share: float | None, vacuole_share: float | None, tail: Midpiece | None
) -> Morphometry:
    # Pixel centres lie on the contour: half a pixel is missing on every side.
    sides = sorted(side + 1 for side in cv2.minAreaRect(head.contour)[1])
    width, length = (side * head.um_per_px for side in sides)
    area = cv2.countNonZero(head.mask) * head.um_per_px**2
    around = perimeter(head.contour.reshape(-1, 2), _CURVE_UM / head.um_per_px) * head.um_per_px
    return Morphometry(
        length_um=Microns(length),
        width_um=Microns(width),
        area_um2=area,
        perimeter_um=Microns(around),
        ellipticity=length / width,
        elongation=(length - width) / (length + width),
        roughness=4 * math.pi * area / around**2,
        regularity=math.pi * length * width / (4 * area),
        acrosome_share=acrosome_share,
        vacuole_share=vacuole_share,
        midpiece_width_um=None if tail is None else Microns(tail.width_um),
        midpiece_angle_deg=None if tail is None else tail.angle_deg,
    )


def perimeter(contour: NDArray[np.integer | np.floating], smoothing: float) -> float:
    """The length in pixels around a closed contour of pixel centres `[n, 2]`, smoothed over `smoothing` pixels."""
    window = 2 * max(1, round(smoothing / 2)) + 1
    # From one mean of `window` points to the next, the first of them is dropped and a new one taken in.
    ahead = np.take(contour, np.arange(window, window + len(contour)), axis=0, mode="wrap")
    steps = (ahead - contour) / window
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum()) + math.pi
