"""From up to 16 bits a channel to 8, by the bits that the camera has: ratios of intensity survive, and so does density.

A 12-bit camera writes 12 bits into a 16-bit file, and the file rarely says so. The brightest pixel does not either: one
hot pixel, or a scale bar burnt in at full scale, is 16 times as bright as the glass.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_USUAL_PCT: Final = 95  # the background is in it, as long as a scale bar or a legend takes up less than a twentieth
_SAMPLE_STEP: Final = 4
_WHITE: Final = 255
_AWAY: Final = 2  # bits; what is less than four times as bright as nearly all of the field belongs to it


def to_8_bit(values: NDArray[np.uint16], stated_bits: int | None = None) -> NDArray[np.uint8]:
    """Divide by the power of two that leaves 8 of the significant bits; what is brighter than those is white.

    `stated_bits` is what the file says of itself; it is believed unless nearly all pixels contradict it.
    """
    shift = np.uint16(max(8, _significant_bits(values, stated_bits)) - 8)
    shifted: NDArray[np.uint16] = values >> shift
    if int(shifted.max()) > _WHITE:
        np.minimum(shifted, _WHITE, out=shifted)
    return shifted.astype(np.uint8)


def _significant_bits(values: NDArray[np.uint16], stated: int | None) -> int:
    brightest = int(values.max()).bit_length()
    sample: NDArray[Any] = values[::_SAMPLE_STEP, ::_SAMPLE_STEP].ravel()
    below = sample[sample < sample.max()]
    if below.size > sample.size / 2:  # an even overlay, however large, says nothing about the camera
        sample = below
    usual = int(np.percentile(sample, _USUAL_PCT)).bit_length()
    if stated is not None and usual <= stated < 16:
        return stated
    return usual if brightest - usual >= _AWAY else brightest
