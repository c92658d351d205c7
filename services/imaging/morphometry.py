"""The measures of one head, after the definitions of the CASA morphology modules."""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.outline import Closeup
from services.imaging.parts import acrosome, long_axis, midpiece, vacuole_share
from services.imaging.types import Morphometry

_CURVE_UM: Final = 0.3  # the outline of pixels is a staircase: its perimeter is taken after smoothing over this length


def measure(head: Closeup) -> Morphometry:
    """All measures of `head`; what cannot be seen on it is None.

    Length and width are the sides of the minimum-area rectangle. Elongation is (L - W) / (L + W), roughness 4πA / P²,
    regularity πLW / 4A. The share of vacuoles is None where no acrosome is seen: in so dark a head none would be.
    """
    contours, _ = cv2.findContours(head.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    # Pixel centres lie on the contour: half a pixel is missing on every side.
    sides = sorted(side + 1 for side in cv2.minAreaRect(contour)[1])
    width, length = (side * head.um_per_px for side in sides)
    area = float(np.count_nonzero(head.mask)) * head.um_per_px**2
    around = perimeter(contour.reshape(-1, 2), _CURVE_UM / head.um_per_px) * head.um_per_px
    coarse = head.halved()
    axis = long_axis(coarse.mask)
    front = acrosome(coarse, axis)
    tail = midpiece(coarse, axis, None if front is None else -front[1])
    return Morphometry(
        length_um=length,
        width_um=width,
        area_um2=area,
        perimeter_um=around,
        ellipticity=length / width,
        elongation=(length - width) / (length + width),
        roughness=4 * math.pi * area / around**2,
        regularity=math.pi * length * width / (4 * area),
        acrosome_share=None if front is None else front[0],
        vacuole_share=None if front is None else vacuole_share(head.tight()),
        midpiece_width_um=None if tail is None else tail.width_um,
        midpiece_angle_deg=None if tail is None else tail.angle_deg,
    )


def perimeter(contour: NDArray[np.integer | np.floating], smoothing: float) -> float:
    """The length in pixels around a closed contour of pixel centres `[n, 2]`, smoothed over `smoothing` pixels."""
    reach = max(1, round(smoothing / 2))
    window = np.full(2 * reach + 1, 1 / (2 * reach + 1))
    closed = np.take(contour, range(-reach, len(contour) + reach), axis=0, mode="wrap").astype(np.float64)
    x, y = (np.convolve(closed[:, k], window, mode="valid") for k in (0, 1))
    return float(np.hypot(np.roll(x, -1) - x, np.roll(y, -1) - y).sum()) + math.pi
