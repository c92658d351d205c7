"""Which cells count, and why the others do not."""

import pytest

from services.imaging.types import NotCounted
from services.releases.counting import why_not_counted

CUT, ISOLATED, NO_SPERM = NotCounted.CUT_BY_BORDER, NotCounted.ISOLATED_HEAD, NotCounted.NOT_A_SPERM


@pytest.mark.parametrize(
    ("found", "share", "minimum", "reason"),
    [
        (None, 0.1, None, None),  # a release without a rule counts every cell
        (None, None, 0.8, None),  # an image of one cell has no field
        (None, 0.8, 0.8, None),
        (None, 0.7999, 0.8, CUT),
        (None, 0.7, 0.7, None),  # 0.7 is a little less in single precision
        (ISOLATED, 1.0, 0.8, ISOLATED),
        (ISOLATED, 0.5, 0.8, CUT),  # its tail may lie beyond the border
        (NO_SPERM, 0.5, 0.8, NO_SPERM),
        (NO_SPERM, 1.0, None, NO_SPERM),
    ],
)
def test_a_cell_counts_unless_there_is_a_reason(
    found: NotCounted | None, share: float | None, minimum: float | None, reason: NotCounted | None
) -> None:
    assert why_not_counted(found, share, minimum) is reason
