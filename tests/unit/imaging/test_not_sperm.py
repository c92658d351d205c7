"""Which heads are no sperm: what has no tail, where a tail would be seen, and what lies within another cell."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.evaluation.detector import match_boxes
from services.imaging.heads import find_heads
from services.imaging.types import RGB, Head
from services.smears.doubtful import Doubtful
from services.smears.field import FieldSpec, draw_field
from services.smears.stains import Stain
from tests.unit.imaging.drawn_heads import Drawn, draw

UM = 0.045
WITH_TAIL = [
    Drawn(8, 8, 20, midpiece=0.5),
    Drawn(20, 8, 130, midpiece=0.5),
    Drawn(33, 10, 75, midpiece=0.5),
    Drawn(10, 21, -40, midpiece=0.5),
]
ALONE = Drawn(25, 21, 30)


def reasons(field: RGB, covered: NDArray[np.uint8] | None = None) -> dict[tuple[int, int], str | None]:
    def place(head: Head) -> tuple[int, int]:
        return round((head.box.x0 + head.box.x1) / 2 * UM), round((head.box.y0 + head.box.y1) / 2 * UM)

    return {place(head): head.not_counted for head in find_heads(field, UM, covered).heads}


def darkened(field: RGB, mask: NDArray[np.bool_], share: float) -> RGB:
    darker = field.copy()
    darker[mask] = (darker[mask] * (1 - share)).astype(np.uint8)
    return darker


def distances(field: RGB, x: float, y: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.indices(field.shape[:2])
    return columns * UM - x, rows * UM - y


def test_a_head_without_a_tail_among_heads_with_one_is_not_counted() -> None:
    found = reasons(draw([*WITH_TAIL, ALONE]))
    assert found.pop((25, 21)) == "isolated_head"
    assert set(found.values()) == {None}
    assert len(found) == len(WITH_TAIL)


def test_a_faint_tail_is_a_tail() -> None:
    field = draw([*WITH_TAIL, Drawn(25, 21, 0)])
    across, down = distances(field, 25, 21)
    tail = (across < -2) & (across > -9) & (abs(down) < 0.25)
    assert reasons(field)[25, 21] == "isolated_head"
    assert reasons(darkened(field, tail, 0.05))[25, 21] is None


@pytest.mark.parametrize("x", [2.9, 37.2])
def test_nothing_is_said_of_a_head_whose_surroundings_the_border_cuts(x: float) -> None:
    assert set(reasons(draw([*WITH_TAIL, Drawn(x, 26, 90, length=4.0)])).values()) == {None}


def test_nothing_is_said_of_a_head_next_to_what_covers_the_field() -> None:
    field = draw([*WITH_TAIL, ALONE])
    _, down = distances(field, 25, 21)
    near, far = ((down > reach).astype(np.uint8) for reach in (3.5, 6.0))
    assert reasons(field, near)[25, 21] is None
    assert reasons(field, far)[25, 21] == "isolated_head"


def test_in_a_field_whose_tails_are_not_seen_every_head_counts() -> None:
    heads = [Drawn(h.x, h.y, h.angle) for h in WITH_TAIL]
    assert set(reasons(draw([*heads, ALONE])).values()) == {None}
    assert set(reasons(draw([*WITH_TAIL[:3], ALONE])).values()) == {None}


def test_an_evenly_dark_body_without_a_tail_is_no_sperm() -> None:
    body = Drawn(25, 21, length=2.9, width=2.8, acrosome=0.0)
    assert reasons(draw([*WITH_TAIL, body]))[25, 21] == "not_a_sperm"
    all_dark = [Drawn(h.x, h.y, h.angle, acrosome=0.0, midpiece=0.5) for h in WITH_TAIL]
    assert reasons(draw([*all_dark, body]))[25, 21] == "isolated_head"


def test_a_nucleus_within_a_cell_is_no_sperm() -> None:
    field = draw([*WITH_TAIL, Drawn(25, 21, 30, length=3.8)])
    across, down = distances(field, 25, 21)
    cell = np.hypot(across, down) < 4.5
    assert reasons(darkened(field, cell, 0.14))[25, 21] == "not_a_sperm"


@pytest.mark.parametrize("stain", Stain)
def test_hardly_a_sperm_of_drawn_fields_loses_its_count(stain: Stain) -> None:
    kinds = (Doubtful.ISOLATED_HEAD, Doubtful.WHITE_CELL, Doubtful.DARK_BODY) * 2
    spec = FieldSpec(stain=stain, cells=12, touching=0.0, debris=0.5, doubtful=kinds)
    sperm = lost = told = 0
    for seed in range(4):
        field = draw_field(np.random.default_rng([17, seed]), spec)
        heads = find_heads(field.pixels, spec.um_per_px).heads
        matched = set(match_boxes([cell.head_box for cell in field.truth.cells], [h.box for h in heads]).values())
        sperm += len(matched)
        lost += sum(heads[number].not_counted is not None for number in matched)
        told += sum(head.not_counted is not None for number, head in enumerate(heads) if number not in matched)
    assert sperm >= 30
    assert lost <= 0.01 * sperm
    assert told >= 3
