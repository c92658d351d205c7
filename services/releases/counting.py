"""Which classified cells count: of one whose crop the border of its field cuts, the networks do not see enough.

What the border cuts depends on where a head lies, and not on its class, so that leaving such cells out favours none.
A release says where it draws the line, `minimum_crop_inside_share`; one that says nothing draws none.
"""

import numpy as np

from services.imaging.types import NotCounted


def why_not_counted(
    found: NotCounted | None, crop_inside_share: float | None, minimum: float | None
) -> NotCounted | None:
    """Why a cell is not counted; None: it is.

    Args:
        found: what was seen of it in the field.
        crop_inside_share: how much of its crop lies in the field, 0 to 1; None: it has no field.
        minimum: how much of it must, by the release; None: it does not matter.
    """
    if found is NotCounted.NOT_A_SPERM or crop_inside_share is None or minimum is None:
        return found
    # As the single precision of the database, which decides it again when a fusion is reapplied.
    return NotCounted.CUT_BY_BORDER if np.float32(crop_inside_share) < np.float32(minimum) else found
