"""What the imaging stages hand to each other. Coordinates are pixels of the decoded field, origin top left."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
"""`[H, W, 3]`, 0 to 255."""


class Box(NamedTuple):
    """`x1` and `y1` are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, slots=True)
class DecodedField:
    """A field as 8-bit RGB. `notes` names what had to be converted (`depth_16_bit`, `palette`, …)."""

    pixels: RGB
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldQuality:
    """Measures of a field. `flags` are warnings; `unusable` is the reason code of a field that cannot be assessed."""

    focus: float | None  # width of the sharpest edges, µm: smaller is sharper; None where nothing has contrast
    exposure_pct: float  # mean luminance, % of full scale
    clipped_pct: float  # pixels at 0 or 255, %
    background_pct: float  # luminance of the background, % of full scale
    unevenness_pct: float  # spread of the background over the field, % of its level
    stain_od: float | None  # optical density of stained objects over background; None where there are none
    flags: tuple[str, ...] = ()
    unusable: str | None = None


@dataclass(frozen=True, slots=True)
class Morphometry:
    """Measures of one head; `None` where a thing cannot be measured on this cell."""

    length_um: float | None = None
    width_um: float | None = None
    area_um2: float | None = None
    perimeter_um: float | None = None
    ellipticity: float | None = None
    elongation: float | None = None
    roughness: float | None = None
    regularity: float | None = None
    acrosome_share: float | None = None
    vacuole_share: float | None = None
    midpiece_width_um: float | None = None
    midpiece_angle_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """One whole sperm head. `outline` is `[n, 2]` int32 x, y in field pixels; `None` for a box that was given."""

    box: Box
    outline: NDArray[np.int32] | None = None
    measures: Morphometry = field(default_factory=Morphometry)


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """An object that is no whole head; `reason` is `border`, `size`, `shape`, `texture` or `stain`."""

    box: Box
    reason: str


@dataclass(frozen=True, slots=True)
class FoundHeads:
    """All heads of a field, ordered by y then x of the box, and what was left out."""

    heads: tuple[Head, ...]
    rejected: tuple[RejectedObject, ...]

    @property
    def on_border(self) -> int:
        """Heads cut by the field's border: counted, never classified."""
        return sum(r.reason == "border" for r in self.rejected)
