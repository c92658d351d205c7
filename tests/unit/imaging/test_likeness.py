"""The same picture is told again in any form; different fields are never taken for it."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.imaging.likeness import SAME, first_of_same, heads_agree, likeness, signature_of
from services.smears.field import FieldSpec, draw_field
from tests.unit.imaging.drawn_heads import Drawn, draw

Field = NDArray[np.uint8]


@pytest.fixture(scope="module")
def fields() -> list[Field]:
    """Drawn fields of few and of many cells."""
    rng = np.random.default_rng(11)
    return [draw_field(rng, FieldSpec(um_per_px=0.1, cells=cells, bacteria=2)).pixels for cells in (4, 5, 9, 20)]


def alike(one: Field, other: Field) -> float:
    first, second = signature_of(one), signature_of(other)
    assert first is not None
    assert second is not None
    return float(likeness(first[np.newaxis], second[np.newaxis])[0, 0])


FORMS = {
    **{f"JPEG {q}": [cv2.IMWRITE_JPEG_QUALITY, q] for q in (50, 75, 95)},
    "half": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "darker": lambda pixels: (pixels * 0.85).astype(np.uint8),
    "grey": lambda pixels: cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "upside down": lambda pixels: pixels[::-1, ::-1].copy(),
    "on its side": lambda pixels: np.rot90(pixels).copy(),
    "mirrored": lambda pixels: pixels[:, ::-1].copy(),
    "a margin cut off": lambda pixels: pixels[8:-8, 8:-8].copy(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_field_is_told_again_in_another_form(fields: list[Field], form: str) -> None:
    for pixels in fields:
        make = FORMS[form]
        if isinstance(make, list):
            other = cv2.imdecode(cv2.imencode(".jpg", pixels, make)[1], cv2.IMREAD_COLOR).astype(np.uint8)
        else:
            other = make(pixels)
        assert alike(pixels, other) > SAME


def test_two_fields_are_not_taken_for_one(fields: list[Field]) -> None:
    assert max(alike(one, other) for one, other in combinations(fields, 2)) < SAME - 0.2


def test_fields_that_overlap_are_two(fields: list[Field]) -> None:
    for pixels in fields:
        width = pixels.shape[1] * 2 // 3
        assert alike(pixels[:, :width].copy(), pixels[:, -width:].copy()) < SAME - 0.2


def test_two_fields_of_one_head_in_the_same_place_are_not_taken_for_one() -> None:
    for angle in (0, 40):
        assert signature_of(draw([Drawn(20, 15, angle)], 0.09)) is None


def test_a_picture_of_nothing_has_no_signature() -> None:
    assert signature_of(np.full((480, 640, 3), 220, np.uint8)) is None


def test_each_picture_has_its_first_of_another_slide(fields: list[Field]) -> None:
    again = [signature_of(pixels) for pixels in (*fields, fields[2][::-1], fields[0], fields[0][:, ::-1])]
    signatures = np.stack([signature for signature in again if signature is not None])
    assert first_of_same(signatures, np.array([1, 1, 1, 1, 2, 2, 3])).tolist() == [0, 1, 2, 3, 2, 0, 0]
    assert first_of_same(signatures, np.full(7, 1)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    many = np.tile(signatures, (60, 1))
    assert first_of_same(many, np.arange(len(many))).tolist() == [0, 1, 2, 3, 2, 0, 0] * 60
    assert first_of_same(np.empty((0, 256), np.int8), np.empty(0, np.int64)).tolist() == []


def test_heads_in_the_same_places_agree_turned_or_mirrored() -> None:
    heads = [(0.1, 0.2), (0.4, 0.9), (0.8, 0.3), (0.6, 0.6)]
    for other in (
        heads,
        [(x + 0.01, y - 0.01) for x, y in heads],
        [(1 - y, x) for x, y in heads],
        [(1 - x, 1 - y) for x, y in heads],
        [(y, x) for x, y in heads],
        [*heads, (0.3, 0.3)],
        heads[:3],
    ):
        assert heads_agree(heads, other)
        assert heads_agree(other, heads)
    for other in ([], heads[:2], [(x + 0.03, y) for x, y in heads], [*heads[:2], (0.8, 0.4), (0.5, 0.6)]):
        assert not heads_agree(heads, other)
        assert not heads_agree(other, heads)


def test_two_fields_of_two_heads_in_the_same_places_are_not_taken_for_one() -> None:
    first, second = ([Drawn(20, 15, angle), Drawn(40, 30, 2 * angle)] for angle in (0, 40))
    one, other = (signature_of(draw(heads, 0.09)) for heads in (first, second))
    assert one is None
    assert other is None
