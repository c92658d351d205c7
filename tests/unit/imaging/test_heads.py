"""Which objects of a field are heads, and why the others are not."""

from collections import Counter

import numpy as np
import pytest

from services.evaluation.detector import match_boxes
from services.imaging.heads import find_heads
from services.imaging.types import Box
from services.smears.doubtful import Doubtful
from services.smears.field import FieldSpec, draw_field
from services.smears.stains import Stain
from services.taxonomy import class_named
from tests.unit.imaging.drawn_heads import GLASS, Drawn, draw

APART = [Drawn(8, 8, 20), Drawn(20, 8, 130), Drawn(32, 9, 75), Drawn(10, 21, -40), Drawn(24, 22, 180)]


def centres(boxes: list[Box], um_per_px: float) -> list[tuple[float, float]]:
    return [((b.x0 + b.x1) / 2 * um_per_px, (b.y0 + b.y1) / 2 * um_per_px) for b in boxes]


@pytest.mark.parametrize(("um_per_px", "tolerance"), [(0.03, 0.06), (0.045, 0.06), (0.09, 0.1), (0.15, 0.15)])
def test_every_head_is_found_once_at_its_place_and_size(um_per_px: float, tolerance: float) -> None:
    found = find_heads(draw(APART, um_per_px), um_per_px)
    assert len(found.heads) == len(APART)
    assert not found.rejected
    for head in APART:
        near = [
            h
            for h, (x, y) in zip(found.heads, centres([h.box for h in found.heads], um_per_px), strict=True)
            if abs(x - head.x) < 0.3 and abs(y - head.y) < 0.3
        ]
        assert len(near) == 1
        assert near[0].measures.length_um == pytest.approx(head.length, rel=tolerance)
        assert near[0].measures.width_um == pytest.approx(head.width, rel=tolerance)


def test_heads_come_in_reading_order_with_outlines_inside_their_boxes() -> None:
    found = find_heads(draw(APART), 0.045)
    places = [(h.box.y0, h.box.x0) for h in found.heads]
    assert places == sorted(places)
    for head in found.heads:
        assert head.outline is not None
        assert head.outline.dtype == np.int32
        assert tuple(head.outline.min(axis=0)) == (head.box.x0, head.box.y0)
        assert tuple(head.outline.max(axis=0) + 1) == (head.box.x1, head.box.y1)


def test_the_same_field_gives_the_same_heads() -> None:
    field = draw(APART)
    first, second = find_heads(field, 0.045), find_heads(field, 0.045)
    assert [(h.box, h.measures) for h in first.heads] == [(h.box, h.measures) for h in second.heads]


def test_vignette_and_a_dim_lamp_change_nothing() -> None:
    field = draw(APART)
    rows, columns = np.indices(field.shape[:2])
    reach = np.hypot(rows / field.shape[0] - 0.5, columns / field.shape[1] - 0.4)
    dimmed = (field * (0.75 - 0.45 * reach)[:, :, None]).astype(np.uint8)
    plain, dim = find_heads(field, 0.045), find_heads(dimmed, 0.045)
    assert len(dim.heads) == len(APART)
    for one, other in zip(plain.heads, dim.heads, strict=True):
        assert np.abs(np.subtract(one.box, other.box)).max() <= 4


@pytest.mark.parametrize(
    "pair",
    [
        [Drawn(18, 15, 0), Drawn(22.1, 15, 180)],
        [Drawn(18, 15, 90), Drawn(20.7, 16, 90)],
        [Drawn(18, 15, 0), Drawn(20.8, 17, 60)],
    ],
    ids=["tip to tip", "side by side", "at an angle"],
)
def test_touching_heads_are_cut_apart(pair: list[Drawn]) -> None:
    found = find_heads(draw(pair), 0.045)
    assert len(found.heads) == 2
    for (x, y), head in zip(
        sorted(centres([h.box for h in found.heads], 0.045)), sorted(pair, key=lambda h: h.x), strict=True
    ):
        assert abs(x - head.x) < 0.5
        assert abs(y - head.y) < 0.5


def test_a_head_that_the_border_cuts_is_counted_but_is_no_head() -> None:
    found = find_heads(draw([Drawn(0.6, 12), Drawn(20, 15), Drawn(30, 29.5, 90)]), 0.045)
    assert len(found.heads) == 1
    assert found.on_border == 2


def test_a_tail_that_leaves_the_field_does_not_cut_its_head() -> None:
    found = find_heads(draw([Drawn(6.0, 15, 0, midpiece=0.7)]), 0.045)
    assert len(found.heads) == 1
    assert found.on_border == 0


def test_debris_is_left_out_with_its_reason() -> None:
    white_cell = Drawn(8, 20, length=11, width=10)
    droplet = Drawn(30, 8, length=3, width=2.8)
    clot = Drawn(30, 22, length=9, width=6)
    field = draw([Drawn(15, 8)], pale=[white_cell, droplet], dark=[clot])
    found = find_heads(field, 0.045)
    assert len(found.heads) == 1
    reasons = {
        (round(x), round(y)): r.reason
        for (x, y), r in zip(centres([r.box for r in found.rejected], 0.045), found.rejected, strict=True)
    }
    assert reasons == {(8, 20): "size", (30, 8): "stain", (30, 22): "size"}


def test_bacteria_are_no_heads() -> None:
    rods = [Drawn(5 + 4 * k, 20, 30 * k, length=2.4, width=0.75) for k in range(8)]
    found = find_heads(draw([Drawn(15, 8)], dark=rods), 0.045)
    assert len(found.heads) == 1


def test_an_object_of_another_colour_than_the_heads_of_the_field_is_left_out() -> None:
    field = draw(APART)
    blue = draw([], dark=[Drawn(36, 26, length=3.6, width=2.6)])
    other = np.where((blue < 120)[:, :, :1].any(axis=2, keepdims=True), (20, 60, 190), field).astype(np.uint8)
    found = find_heads(other, 0.045)
    assert len(found.heads) == len(APART)
    assert [r.reason for r in found.rejected] == ["stain"]


def test_a_vacuole_that_reaches_nearly_to_the_edge_leaves_the_head_whole() -> None:
    found = find_heads(draw([Drawn(20, 15)], bright=[Drawn(21.2, 15.2, length=1.2, width=1.1)]), 0.045)
    assert len(found.heads) == 1
    assert found.heads[0].measures.length_um == pytest.approx(4.4, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 40), (600, 800)])
@pytest.mark.parametrize("colour", [GLASS, (0, 0, 0), (255, 255, 255)])
def test_an_empty_field_has_no_heads(shape: tuple[int, int], colour: tuple[int, int, int]) -> None:
    found = find_heads(np.full((*shape, 3), colour, np.uint8), 0.09)
    assert not found.heads


def test_a_dark_body_of_unusual_size_is_no_head_where_heads_show_an_acrosome() -> None:
    body = Drawn(36, 26, length=2.5, width=2.4, acrosome=0.0)
    found = find_heads(draw([*APART, body]), 0.045)
    assert len(found.heads) == len(APART)
    assert [r.reason for r in found.rejected] == ["texture"]
    with_tail = Drawn(36, 24, -90, length=2.5, width=2.4, acrosome=0.0, midpiece=0.7)
    assert len(find_heads(draw([*APART, with_tail]), 0.045).heads) == len(APART) + 1
    all_dark = [Drawn(h.x, h.y, h.angle, acrosome=0.0) for h in APART]
    assert len(find_heads(draw([*all_dark, body]), 0.045).heads) == len(APART) + 1


def test_a_whole_head_close_to_the_border_is_a_head() -> None:
    found = find_heads(draw([Drawn(4.4 / 2 + 0.16, 15)]), 0.045)
    assert len(found.heads) == 1
    assert found.on_border == 0


def test_large_vacuoles_in_a_pale_stain_do_not_lose_the_head() -> None:
    kinds = (class_named("VacuolatedHead").index, class_named("TaperedHead").index)
    spec = FieldSpec(stain=Stain.PAPANICOLAOU, classes=(*kinds, *kinds) * 3, blur_um=0.25, touching=0.0, debris=0.3)
    there, found = 0, 0
    for seed in range(4):
        field = draw_field(np.random.default_rng([11, seed]), spec)
        boxes = [head.box for head in find_heads(field.pixels, spec.um_per_px).heads]
        cells = [cell for cell in field.truth.cells if cell.whole]
        matched = match_boxes([cell.head_box for cell in cells], [(b.x0, b.y0, b.x1, b.y1) for b in boxes])
        vacuolated = [number for number, cell in enumerate(cells) if cell.class_index == kinds[0]]
        there += len(vacuolated)
        found += sum(number in matched for number in vacuolated)
    assert there >= 15
    assert found >= 0.85 * there


@pytest.mark.parametrize("length", [1.3, 1.7, 2.1])
def test_a_pin_head_is_found_by_its_tail(length: float) -> None:
    pin = Drawn(36, 20, -90, length=length, width=length - 0.1, acrosome=0.0, midpiece=0.5)
    found = find_heads(draw([*APART, pin]), 0.045)
    assert len(found.heads) == len(APART) + 1
    smallest = min(found.heads, key=lambda head: head.measures.area_um2 or 0)
    assert smallest.measures.length_um == pytest.approx(length, abs=0.3)
    without_tail = Drawn(36, 20, -90, length=length, width=length - 0.1, acrosome=0.0)
    assert len(find_heads(draw([*APART, without_tail]), 0.045).heads) == len(APART)


def test_a_dark_grain_on_the_tail_of_another_cell_is_no_pin_head() -> None:
    tail, grain = Drawn(22, 15, length=40, width=0.6), Drawn(33, 15, length=1.7, width=1.6, acrosome=0.0)
    assert len(find_heads(draw([*APART, grain], pale=[tail]), 0.045).heads) == len(APART)


def test_a_field_of_nothing_but_small_heads_has_none() -> None:
    """So that heads at a wrong scale are not taken for pin heads."""
    pins = [Drawn(h.x, h.y, h.angle, length=1.8, width=1.7, acrosome=0.0, midpiece=0.5) for h in APART]
    assert not find_heads(draw(pins), 0.045).heads


def test_two_heads_on_one_neck_are_one_cell() -> None:
    spread = 28.0
    heads = [Drawn(18 + 2.0, 15 - 1.35, -spread, length=4.2, width=2.4), Drawn(18 + 2.0, 15 + 1.35, spread, 4.2, 2.4)]
    neck = Drawn(18.6, 15, 0, length=0.8, width=0.8, acrosome=0.0, midpiece=0.6)
    found = find_heads(draw([neck, *heads]), 0.045)
    assert len(found.heads) == 1
    box = found.heads[0].box
    assert (box.y1 - box.y0) * 0.045 > 4.5


def test_two_cells_that_touch_where_their_tails_begin_are_two() -> None:
    upper = Drawn(18, 13.6, -25, length=4.2, width=2.4, midpiece=0.5, bend=25)
    lower = Drawn(18, 16.2, 25, length=4.2, width=2.4, midpiece=0.5, bend=-25)
    assert len(find_heads(draw([upper, lower]), 0.045).heads) == 2


@pytest.mark.parametrize("stain", Stain)
def test_doubtful_cells_of_drawn_fields(stain: Stain) -> None:
    """The heads of two cells that touch must not become one."""
    kinds = (Doubtful.PIN_HEAD, Doubtful.DOUBLE_HEAD, Doubtful.TOUCHING) * 4
    spec = FieldSpec(stain=stain, cells=4, touching=0.0, debris=0.3, doubtful=kinds)
    there, found = Counter[str](), Counter[str]()
    for seed in range(4):
        field = draw_field(np.random.default_rng([14, seed]), spec)
        boxes = [head.box for head in find_heads(field.pixels, spec.um_per_px).heads]
        matched = match_boxes([cell.head_box for cell in field.truth.cells], boxes)
        for number, cell in enumerate(field.truth.cells):
            there[cell.kind] += cell.whole
            found[cell.kind] += cell.whole and number in matched
    assert found["pin_head"] >= 0.7 * there["pin_head"]
    assert found["double_head"] >= 0.7 * there["double_head"]
    assert found["touching"] >= 0.8 * there["touching"]
