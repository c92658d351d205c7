"""Intervals and agreement against figures worked out elsewhere."""

import pytest

from services.reporting.statistics import acceptable_difference, exact_p, replicate_difference, wilson


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


# p worked out in whole numbers, by math.comb
@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ((4, 200), (12, 201), 0.07260924217044148),
        ((0, 500), (0, 400), 1.0),
        ((8, 200), (40, 1000), 1.0),
        ((30, 400), (60, 420), 0.0025310338867884953),
        ((210, 210), (205, 215), 0.0019750948139858593),
        ((90, 3000), (160, 5000), 0.6693626236140001),
    ],
)
def test_larger_replicates_go_by_the_exact_test(first: tuple[int, int], second: tuple[int, int], p: float) -> None:
    found = replicate_difference(first, second)
    assert found.p_value == pytest.approx(p, rel=1e-9)
    assert found.is_acceptable == (p > 0.05)
    assert found.acceptable_points is None
    assert replicate_difference(second, first).p_value == pytest.approx(p, rel=1e-9)


def test_the_verdict_does_not_jump_at_the_next_cell() -> None:
    for normal in range(30):
        for other in range(normal, normal + 20):
            of_200 = exact_p((normal, 200), (other, 200))
            for totals in ((200, 201), (201, 200)):
                next_one = exact_p((normal, totals[0]), (other, totals[1]))
                assert abs(next_one - of_200) < 0.02 or min(next_one, of_200) > 0.1, (normal, other, totals)
    assert replicate_difference((4, 200), (12, 200)).is_acceptable
    assert replicate_difference((4, 200), (12, 201)).is_acceptable
    assert not replicate_difference((4, 200), (16, 201)).is_acceptable


@pytest.mark.parametrize("totals", [(199, 200), (200, 199), (33, 28), (0, 200)])
def test_fewer_than_200_cells_cannot_be_compared(totals: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="200 are required"):
        replicate_difference((0, totals[0]), (0, totals[1]))
