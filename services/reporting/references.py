"""Figures of the WHO laboratory manual that results are printed beside. A reference, never a verdict."""

from dataclasses import dataclass
from typing import Final

CENTILE_5_NORMAL_PCT: Final = 4.0
CENTILE_5_INTERVAL_PCT: Final = (3.9, 4.0)
"""5th centile of normal forms, % with its 95 % interval, among men whose partners conceived within a year."""
CENTILE_5_SOURCE: Final = "WHO laboratory manual for the examination and processing of human semen, 6th edition, 2021"
CENTILE_5_TEXT: Final = "5th centile, 4 % (3.9–4.0); not a limit between fertile and infertile men"
FEWEST_CELLS: Final = 200
"""Spermatozoa that the manual asks for in each replicate."""
LOW_CONFIDENCE: Final = 0.5
"""Ours, not the manual's: a cell whose best class has less than half of the probability."""

_SIZE_SOURCE: Final = "WHO laboratory manual: normal heads, Papanicolaou stain, 95 % interval (at second hand)"
_ACROSOME_SOURCE: Final = "WHO laboratory manual: criteria of a normal head (Menkveld et al. 2001; at second hand)"


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a head. `column` is that of `cell`; `low` and `high` are the WHO range, where there is one.

    `stain` is the stain after which the range was measured, and for no other does it hold; `None`: for any.
    """

    column: str
    unit: str
    meaning: str
    low: float | None = None
    high: float | None = None
    source: str | None = None
    stain: str | None = None


MEASURES: Final[tuple[Measure, ...]] = (
    Measure("head_length_um", "µm", "Long side of the minimum-area rectangle", 3.7, 4.7, _SIZE_SOURCE, "papanicolaou"),
    Measure("head_width_um", "µm", "Short side of the minimum-area rectangle", 2.5, 3.2, _SIZE_SOURCE, "papanicolaou"),
    Measure("head_area_um2", "µm²", "Area of the head"),
    Measure("head_perimeter_um", "µm", "Perimeter of the head"),
    Measure("ellipticity", "ratio", "Length ÷ width", 1.3, 1.8, _SIZE_SOURCE, "papanicolaou"),
    Measure("elongation", "ratio", "(length − width) ÷ (length + width)"),
    Measure("roughness", "ratio", "4π·area ÷ perimeter²"),
    Measure("regularity", "ratio", "π·length·width ÷ (4·area)"),
    Measure("acrosome_share", "share", "Acrosome area ÷ head area, 0 to 1", 0.40, 0.70, _ACROSOME_SOURCE),
    Measure("vacuole_share", "share", "Vacuole area ÷ head area, 0 to 1"),
    Measure("midpiece_width_um", "µm", "Width of the midpiece at its insertion"),
    Measure("midpiece_angle_deg", "degrees", "Angle between midpiece and long axis of the head, 0 to 90"),
)
