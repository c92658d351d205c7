"""Intervals and agreement of counted shares, as the WHO manual has them."""

import math
from dataclasses import dataclass
from typing import Final

from services.reporting.references import FEWEST_CELLS

Z_95: Final = 1.959963984540054

ALPHA: Final = 0.05
"""Two replicates of one specimen are told to differ this often at most: what the WHO table's 95 % stands for."""

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
    """How far two replicates are apart, and whether chance explains it: else both slides are to be counted again.

    The WHO table gives `acceptable_points`, the exact test `p_value`; the other one is `None`.
    """

    first_pct: float
    second_pct: float
    is_acceptable: bool
    method: str
    acceptable_points: float | None = None
    p_value: float | None = None

    @property
    def difference_points(self) -> float:
        """Percentage points between the two."""
        return abs(self.first_pct - self.second_pct)


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

    Two replicates of 200 are judged by the WHO table, larger ones by the exact test at `ALPHA`. Smaller ones are not
    judged: the manual has no table for them, and two small counts agree whatever they are.

    Raises:
        ValueError: a replicate has fewer than 200 cells.
    """
    (cells_1, total_1), (cells_2, total_2) = first, second
    if min(total_1, total_2) < FEWEST_CELLS:
        raise ValueError(f"replicates of {total_1} and {total_2} cells cannot be compared: {FEWEST_CELLS} are required")
    pct_1, pct_2 = 100 * cells_1 / total_1, 100 * cells_2 / total_2
    if total_1 == total_2 == FEWEST_CELLS:
        points = acceptable_difference((pct_1 + pct_2) / 2)
        acceptable = abs(cells_1 - cells_2) * 100 <= points * FEWEST_CELLS
        return ReplicateDifference(pct_1, pct_2, acceptable, "WHO table for two replicates of 200", float(points))
    p = exact_p(first, second)
    return ReplicateDifference(pct_1, pct_2, p > ALPHA, "Fisher's exact test, twice the smaller tail", p_value=p)


def exact_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """How probable two replicates `(cells, total)` of one share are to lie this far apart or farther: 0 to 1.

    Fisher's exact test: given the cells of both together, those of the first are hypergeometric. Two-sided as twice the
    smaller tail, which moves by little when a cell is added; the sum of all less probable outcomes jumps.
    `reporting.replicates_p` is the same in SQL.
    """
    (cells_1, total_1), (cells_2, total_2) = first, second
    both = cells_1 + cells_2
    possible = range(max(0, both - total_2), min(both, total_1) + 1)
    logs = [_log_choose(total_1, k) + _log_choose(total_2, both - k) for k in possible]
    weights = [math.exp(log - max(logs)) for log in logs]
    at = cells_1 - possible.start
    return min(1.0, 2 * min(sum(weights[: at + 1]), sum(weights[at:])) / sum(weights))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
