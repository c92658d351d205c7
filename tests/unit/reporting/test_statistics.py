"""Intervals and agreement against figures worked out elsewhere."""

import pytest

from services.reporting.statistics import acceptable_difference, replicate_difference, wilson


def test_the_limit_of_4_pct_in_200_cells_is_uncertain_by_a_factor() -> None:
    interval = wilson(8, 200)
    assert interval.pct == pytest.approx(4.0)
    assert interval.low_pct == pytest.approx(2.04, abs=0.01)
    assert interval.high_pct == pytest.approx(7.69, abs=0.01)


def test_nothing_and_everything_keep_an_interval_inside_0_to_100() -> None:
    none, every = wilson(0, 200), wilson(200, 200)
    assert (none.low_pct, none.high_pct) == (0.0, pytest.approx(1.88, abs=0.01))
    assert (every.low_pct, every.high_pct) == (pytest.approx(98.12, abs=0.01), 100.0)


@pytest.mark.parametrize(("cells", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_an_impossible_count_and_a_share_of_nothing_are_refused(cells: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        wilson(cells, total)


WHO_TABLE = {
    0: 1, 1: 2, 2: 3, 3: 4, 4: 4, 5: 5, 7: 5, 8: 6, 11: 6, 12: 7, 16: 7, 17: 8, 23: 8, 24: 9, 34: 9, 35: 10, 50: 10,
    65: 10, 66: 9, 76: 9, 77: 8, 83: 8, 84: 7, 88: 7, 89: 6, 92: 6, 93: 5, 95: 5, 96: 4, 97: 4, 98: 3, 99: 2, 100: 1,
}  # fmt: skip


@pytest.mark.parametrize(("mean", "points"), WHO_TABLE.items())
def test_the_who_table_and_its_mirror(mean: int, points: int) -> None:
    assert acceptable_difference(mean) == points


def test_a_mean_between_two_rows_is_rounded_half_up() -> None:
    assert acceptable_difference(2.5) == 4
    assert acceptable_difference(2.49) == 3


def test_two_replicates_of_200_go_by_the_table() -> None:
    agreed = replicate_difference((4, 200), (12, 200))  # 2 % and 6 %: mean 4, so 4 points are acceptable
    apart = replicate_difference((4, 200), (13, 200))  # 4.5 points
    assert agreed.acceptable_points == 4
    assert "table" in agreed.method
    assert agreed.is_acceptable
    assert not apart.is_acceptable


def test_other_counts_go_by_the_formula() -> None:
    found = replicate_difference((10, 100), (30, 150))
    # p = 16 %: 1.96 · sqrt(16 · 84 · (1/100 + 1/150)) = 9.277
    assert found.acceptable_points == pytest.approx(9.277, abs=0.001)
    assert found.difference_points == pytest.approx(10.0)
    assert not found.is_acceptable


def test_a_replicate_without_cells_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        replicate_difference((0, 0), (8, 200))
