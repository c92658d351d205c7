"""The measures of one head from its outline."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.types import Morphometry


def shape_measures(outline: NDArray[np.int32], um_per_px: float) -> Morphometry:
    """Size and form of a head outline `[n, 2]`, after the definitions of the CASA morphology modules.

    Length and width are the sides of the minimum-area rectangle. Pixel centres lie on the outline, so half a pixel is
    added on every side.
    """
    (_, _), sides, _ = cv2.minAreaRect(outline)
    length, width = ((side + 1) * um_per_px for side in sorted(sides, reverse=True))
    perimeter_px = cv2.arcLength(outline, closed=True)
    area = (cv2.contourArea(outline) + perimeter_px / 2 + 1) * um_per_px**2
    perimeter = (perimeter_px + math.pi) * um_per_px
    return Morphometry(
        length_um=length,
        width_um=width,
        area_um2=area,
        perimeter_um=perimeter,
        ellipticity=length / width,
        elongation=(length - width) / (length + width),
        roughness=4 * math.pi * area / perimeter**2,
        regularity=math.pi * length * width / (4 * area),
    )
