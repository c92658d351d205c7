"""Which of the heads that were found are no sperm: heads without a tail, dark bodies, nuclei within other cells.

Only what has a head and a tail is counted (WHO laboratory manual, 6th edition). But a tail may be faint or out of view:
nothing is said where the surroundings of a head do not lie in the field, nor in a field whose other heads do not show
theirs.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.imaging.detection.strands import FAR_UM, surroundings
from services.imaging.detection.transmittance import FlatField
from services.imaging.types import Head, NotCounted

_TAIL: Final = 4  # levels of 255: the faintest of 852 tails of real fields has 5
_WITHIN: Final = (
    0.65  # of what lies around a nucleus within a cell is stained; around a head of real fields at most 0.55
)
_FEWEST_WITH_TAIL: Final = 4
_MOST: Final = 0.67


def judged(
    heads: Sequence[Head], has_tail: Sequence[bool], flat: FlatField, covered: NDArray[np.uint8] | None
) -> list[Head]:
    """`heads`, those that are no sperm with their reason; `has_tail` says of which a tail is known already.

    `covered` `[H, W]`, if given, is 1 where something covers the field.
    """
    judgements = [
        _Judgement.TAIL if known or head.measures.midpiece_width_um is not None else _look(head, flat, covered)
        for head, known in zip(heads, has_tail, strict=True)
    ]
    alone = judgements.count(_Judgement.ALONE)
    tails_show = judgements.count(_Judgement.TAIL) >= max(_FEWEST_WITH_TAIL, alone)
    acrosomes_show = sum(head.measures.acrosome_share is not None for head in heads) >= _MOST * len(heads)
    return [
        replace(head, not_counted=_reason(head, judgement, tails_show=tails_show, acrosomes_show=acrosomes_show))
        for head, judgement in zip(heads, judgements, strict=True)
    ]


class _Judgement(Enum):
    TAIL = auto()
    ALONE = auto()
    WITHIN_A_CELL = auto()
    NOT_IN_VIEW = auto()


def _look(head: Head, flat: FlatField, covered: NDArray[np.uint8] | None) -> _Judgement:
    if head.outline is None:
        return _Judgement.NOT_IN_VIEW
    scale = np.array(flat.shrink, np.float32)
    around = surroundings(flat, ((head.outline + 0.5) / scale - 0.5).astype(np.float32), _TAIL)
    if around.stained > _WITHIN:
        return _Judgement.WITHIN_A_CELL
    if around.strand:
        return _Judgement.TAIL
    return _Judgement.ALONE if _in_view(head, flat, covered) else _Judgement.NOT_IN_VIEW


def _in_view(head: Head, flat: FlatField, covered: NDArray[np.uint8] | None) -> bool:
    """Whether all around the head, as far as a tail is looked for, lies in the field and is not covered."""
    across, down = (round(FAR_UM / flat.um_per_px * step) for step in flat.shrink)
    height, width = (round(side * step) for side, step in zip(flat.size, flat.shrink[::-1], strict=True))
    box = head.box
    left, top, right, bottom = box.x0 - across, box.y0 - down, box.x1 + across, box.y1 + down
    if min(left, top) < 0 or right > width or bottom > height:
        return False
    return covered is None or not covered[top:bottom, left:right].any()


def _reason(head: Head, judgement: _Judgement, *, tails_show: bool, acrosomes_show: bool) -> NotCounted | None:
    if judgement is _Judgement.WITHIN_A_CELL:
        return NotCounted.NOT_A_SPERM
    if judgement is not _Judgement.ALONE or not tails_show:
        return None
    is_dark_body = acrosomes_show and head.measures.acrosome_share is None
    return NotCounted.NOT_A_SPERM if is_dark_body else NotCounted.ISOLATED_HEAD
