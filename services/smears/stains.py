"""Colours of three stains as light absorbs in them: optical densities of red, green and blue, ready to be added.

Values were set by eye and by medians on stained smears, so that glass, nucleus and acrosome come out in the colours
that a camera shows. They vary from slide to slide, as staining times and lots do.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Density = tuple[float, float, float]
"""Optical density (natural logarithm) of red, green, blue."""


class Stain(StrEnum):
    """The staining methods that are drawn; the values are the names in a manifest."""

    DIFF_QUIK = "diff-quik"
    PAPANICOLAOU = "papanicolaou"
    SHORR = "shorr"


@dataclass(frozen=True, slots=True)
class Palette:
    """What each structure absorbs, and the colour 0–255 of empty glass as the camera balances it."""

    glass: tuple[float, float, float]
    nucleus: Density
    nucleus_base: Density
    acrosome: Density
    midpiece: Density
    tail: Density
    plasma: Density
    bacteria: Density
    granule: Density
    cytoplasm: Density

    def of_slide(self, rng: np.random.Generator) -> "Palette":
        """This palette as one slide shows it: stronger or weaker stain, another white balance."""
        strength = float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.3))
        plasm = strength * float(np.clip(rng.normal(1.0, 0.2), 0.6, 1.5))
        tint = rng.normal(0.0, 0.05, 3)
        glass = np.clip(np.asarray(self.glass) * rng.normal(1.0, 0.008, 3) + rng.normal(0.0, 4.0), 150, 246)
        return replace(
            self,
            glass=_triple(glass),
            nucleus=_scaled(self.nucleus, strength, tint),
            nucleus_base=_scaled(self.nucleus_base, strength, tint),
            acrosome=_scaled(self.acrosome, strength * float(np.clip(rng.normal(1.0, 0.1), 0.75, 1.25)), tint),
            midpiece=_scaled(self.midpiece, plasm, tint),
            tail=_scaled(self.tail, plasm, tint),
            plasma=_scaled(self.plasma, plasm, tint),
        )


def _scaled(density: Density, factor: float, tint: NDArray[np.float64]) -> Density:
    return _triple(np.asarray(density) * factor * (1.0 + tint))


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


PALETTES: Final[dict[Stain, Palette]] = {
    # Violet to purple heads with a magenta, paler acrosome; pale blue tails on bluish glass.
    Stain.DIFF_QUIK: Palette(
        glass=(226, 229, 232),
        nucleus=(1.35, 3.6, 0.17),
        nucleus_base=(2.6, 3.8, 0.28),
        acrosome=(0.33, 0.68, 0.045),
        midpiece=(0.2, 0.185, 0.015),
        tail=(0.115, 0.11, 0.008),
        plasma=(0.10, 0.095, 0.01),
        bacteria=(1.7, 0.85, 0.12),
        granule=(0.30, 0.60, 0.09),
        cytoplasm=(0.30, 0.25, 0.06),
    ),
    # Blue nucleus, pale blue acrosome, faintly reddish midpiece and tail on a warm, greenish-grey glass.
    Stain.PAPANICOLAOU: Palette(
        glass=(227, 229, 223),
        nucleus=(1.75, 1.55, 0.62),
        nucleus_base=(2.1, 1.9, 0.78),
        acrosome=(0.62, 0.44, 0.14),
        midpiece=(0.20, 0.34, 0.20),
        tail=(0.17, 0.21, 0.13),
        plasma=(0.10, 0.075, 0.06),
        bacteria=(1.2, 0.95, 0.40),
        granule=(0.35, 0.60, 0.40),
        cytoplasm=(0.34, 0.17, 0.21),
    ),
    # Dark violet-brown nucleus, rose acrosome, greenish tails on nearly white glass.
    Stain.SHORR: Palette(
        glass=(231, 226, 224),
        nucleus=(1.35, 1.95, 1.02),
        nucleus_base=(1.7, 2.3, 1.15),
        acrosome=(0.22, 0.66, 0.36),
        midpiece=(0.34, 0.25, 0.20),
        tail=(0.23, 0.17, 0.145),
        plasma=(0.085, 0.09, 0.06),
        bacteria=(1.0, 0.95, 0.55),
        granule=(0.30, 0.62, 0.35),
        cytoplasm=(0.16, 0.33, 0.20),
    ),
}
