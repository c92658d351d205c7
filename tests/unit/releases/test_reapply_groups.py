"""How results are grouped into transactions."""

from datetime import date

import pytest

from services.releases import reapply
from services.releases.queries import ResultsOfBatch

FIRST, SECOND = date(2026, 11, 2), date(2026, 11, 3)


@pytest.mark.parametrize(
    ("results", "groups"),
    [
        ([(1, FIRST, 10), (2, FIRST, 10), (3, FIRST, 10)], [[1, 2, 3]]),
        ([(1, FIRST, 10), (2, SECOND, 10)], [[1], [2]]),
        ([(1, FIRST, 60), (2, FIRST, 60), (3, FIRST, 60)], [[1, 2], [3]]),
        # Two releases in one batch: it stays whole, however many cells it has.
        ([(1, FIRST, 200), (1, FIRST, 10), (2, FIRST, 10)], [[1, 1], [2]]),
    ],
)
def test_a_transaction_takes_whole_batches_of_one_day(
    monkeypatch: pytest.MonkeyPatch, results: list[tuple[int, date, int]], groups: list[list[int]]
) -> None:
    monkeypatch.setattr(reapply, "_CELLS_A_TRANSACTION", 100)
    given = [ResultsOfBatch(key, day, f"r{n}", [n], [cells]) for n, (key, day, cells) in enumerate(results)]
    assert [[result.batch_key for result in group] for group in reapply._groups(given)] == groups
