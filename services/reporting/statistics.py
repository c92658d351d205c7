"""Intervals and agreement of counted shares, as the WHO manual has them."""

import math
from dataclasses import dataclass
from typing import Final

from services.reporting.references import FEWEST_CELLS

Z_95: Final = 1.959963984540054

# WHO laboratory manual, 6th edition: the largest difference between two replicates of 200 that chance explains, by
# their mean. A lookup table: no rounded formula gives all of it. (highest mean, %, of the row; points)
_ACCEPTABLE: Final = ((0, 1), (1, 2), (2, 3), (4, 4), (7, 5), (11, 6), (16, 7), (23, 8), (34, 9), (65, 10))


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its 95 % interval, all in % of `total`."""

    cells: int
    total: int
    pct: float
    low_pct: float
    high_pct: float


@dataclass(frozen=True, slots=True)
class ReplicateDifference:
    """How far two replicates are apart, and how far chance explains; percentages and percentage points."""

    first_pct: float
    second_pct: float
    difference_points: float
    acceptable_points: float
    method: str

    @property
    def is_acceptable(self) -> bool:
        """The replicates may be joined; otherwise both slides are to be counted again."""
        # Shares are ratios of small integers: a difference that equals the limit must not fail by the last bit.
        return self.difference_points <= self.acceptable_points + 1e-9


def wilson(cells: int, total: int) -> Interval:
    """The share `cells / total` with its Wilson score interval at 95 % (Wilson 1927).

    Raises:
        ValueError: `cells` is not a count out of `total`, or `total` is 0.
    """
    if not 0 <= cells <= total or total == 0:
        raise ValueError(f"{cells} of {total} is not a share")
    p, z2 = cells / total, Z_95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    low = 0.0 if cells == 0 else 100 * (middle - half)
    high = 100.0 if cells == total else 100 * (middle + half)
    return Interval(cells, total, 100 * p, low, high)


def acceptable_difference(mean_pct: float) -> int:
    """Points by which two replicates of 200 cells each may differ at a mean of `mean_pct` %, from the WHO table.

    Raises:
        ValueError: `mean_pct` is not a percentage.
    """
    if not 0 <= mean_pct <= 100:
        raise ValueError(f"{mean_pct} is not a percentage")
    rounded = math.floor(mean_pct + 0.5)
    mirrored = 100 - rounded if rounded > 65 else rounded
    return next(points for highest, points in _ACCEPTABLE if mirrored <= highest)


def replicate_difference(first: tuple[int, int], second: tuple[int, int]) -> ReplicateDifference:
    """Compare a share in two replicates, each `(cells, total)`.

    Two replicates of 200 are judged by the WHO table; other counts by 1.96·√(p(100 − p)(1/n₁ + 1/n₂)), p the share of
    both together in %.

    Raises:
        ValueError: a replicate counted nothing.
    """
    (cells_1, total_1), (cells_2, total_2) = first, second
    if total_1 == 0 or total_2 == 0:
        raise ValueError(f"{cells_1} of {total_1} and {cells_2} of {total_2} cannot be compared")
    pct_1, pct_2 = 100 * cells_1 / total_1, 100 * cells_2 / total_2
    if total_1 == total_2 == FEWEST_CELLS:
        acceptable, method = float(acceptable_difference((pct_1 + pct_2) / 2)), "WHO table for two replicates of 200"
    else:
        p = 100 * (cells_1 + cells_2) / (total_1 + total_2)
        acceptable = 1.96 * math.sqrt(p * (100 - p) * (1 / total_1 + 1 / total_2))
        method = "1.96·√(p(100−p)(1/n₁+1/n₂))"
    return ReplicateDifference(pct_1, pct_2, abs(pct_1 - pct_2), acceptable, method)
