"""Measures of heads whose size is known."""

import math

import numpy as np
import pytest

from services.imaging.detection.tracing import Closeup
from services.imaging.heads import find_heads
from services.imaging.measuring.morphometry import measure, perimeter
from services.imaging.types import Morphometry
from tests.unit.imaging.drawn_heads import Drawn, draw


def measured(head: Drawn, um_per_px: float = 0.045, **spots: list[Drawn]) -> Morphometry:
    found = find_heads(draw([head], um_per_px, **spots), um_per_px)
    assert len(found.heads) == 1
    return found.heads[0].measures


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 133])
def test_size_and_form_of_an_ellipse(angle: float) -> None:
    length, width = 4.6, 2.9
    m = measured(Drawn(20, 15, angle, length, width))
    girth = math.pi * (3 * (length + width) / 2 - math.sqrt((3 * length + width) * (length + 3 * width) / 4))
    area = math.pi * length * width / 4
    assert m.length_um == pytest.approx(length, rel=0.05)
    assert m.width_um == pytest.approx(width, rel=0.05)
    assert m.area_um2 == pytest.approx(area, rel=0.08)
    assert m.perimeter_um == pytest.approx(girth, rel=0.05)
    assert m.ellipticity == pytest.approx(length / width, rel=0.05)
    assert m.elongation == pytest.approx((length - width) / (length + width), abs=0.03)
    assert m.roughness == pytest.approx(4 * math.pi * area / girth**2, rel=0.05)
    assert m.regularity == pytest.approx(1.0, rel=0.05)


def test_a_circle_of_pixels_has_the_girth_of_a_circle() -> None:
    angles = np.linspace(0, 2 * math.pi, 1000)
    staircase = np.round(np.stack([100 + 40 * np.cos(angles), 100 + 40 * np.sin(angles)], axis=1)).astype(np.int32)
    corners = staircase[np.r_[True, np.any(np.diff(staircase, axis=0), axis=1)]]
    assert perimeter(corners, 7) == pytest.approx(2 * math.pi * 40.5, rel=0.02)


@pytest.mark.parametrize("share", [0.25, 0.4, 0.55])
@pytest.mark.parametrize("angle", [0, 70, 200])
def test_the_acrosome_is_the_paler_end_whichever_it_is(share: float, angle: float) -> None:
    assert measured(Drawn(20, 15, angle, acrosome=share)).acrosome_share == pytest.approx(share, abs=0.06)


def test_what_cannot_be_seen_is_none_and_never_zero() -> None:
    m = measured(Drawn(20, 15, acrosome=0.0))
    assert m.acrosome_share is None
    assert m.vacuole_share is None
    assert m.midpiece_width_um is None
    assert m.midpiece_angle_deg is None
    assert m.length_um is not None


def test_vacuoles_are_a_share_of_the_head() -> None:
    head = Drawn(20, 15, acrosome=0.5)
    vacuole = Drawn(21.0, 15.0, length=0.7, width=0.6)
    assert measured(head).vacuole_share == pytest.approx(0.0, abs=0.005)
    expected = vacuole.length * vacuole.width / (head.length * head.width)
    assert measured(head, bright=[vacuole]).vacuole_share == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("bend", [0, 15, 30])
@pytest.mark.parametrize("angle", [0, 60, 250])
def test_width_and_angle_of_the_midpiece(angle: float, bend: float) -> None:
    m = measured(Drawn(20, 15, angle, midpiece=0.7, bend=bend))
    assert m.midpiece_width_um == pytest.approx(0.7, rel=0.25)
    assert m.midpiece_angle_deg == pytest.approx(bend, abs=8)


def test_a_head_measures_the_same_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lone = [Drawn(8, 8, 20), Drawn(22, 8, 130, midpiece=0.7), Drawn(36, 8, 75, 6.0, 2.2), Drawn(9, 21, acrosome=0.0)]
    close = [Drawn(3.2, 27, 90, midpiece=0.8), Drawn(20, 20.0), Drawn(20, 24.5, bend=15, midpiece=0.7)]
    cut_short = [Drawn(30, 26.55, 270, midpiece=0.7), Drawn(30, 2.35, 90)]  # the border cuts what surrounds them
    drawn = [*lone, *close, *cut_short]
    heads: list[Closeup] = []

    def keep(closeups: list[Closeup]) -> list[Morphometry]:
        heads.extend(closeups)
        return measure(closeups)

    monkeypatch.setattr("services.imaging.heads.measure", keep)
    for um_per_px in (0.045, 0.09):
        heads.clear()
        find_heads(draw(drawn, um_per_px, bright=[Drawn(8.5, 8.2, length=0.7, width=0.6)]), um_per_px)
        even = 1 if um_per_px > 0.06 else 0  # without an acrosome and without a lens it is told from no drawn dot there
        assert len(heads) == len(drawn) - even
        alone = [measure([head])[0] for head in heads]
        assert measure(heads) == alone
        assert measure(heads * 12) == alone * 12  # more than are taken at once
        for number, head in enumerate(heads):
            assert [measure([head, other])[0] for other in heads] == [alone[number]] * len(heads)


def test_no_heads_have_no_measures() -> None:
    assert measure([]) == []


def test_a_finer_image_of_the_same_head_has_the_same_measures() -> None:
    head = Drawn(20, 15, 35, midpiece=0.7)
    one, other = measured(head, 0.045), measured(head, 0.09)
    assert one.length_um == pytest.approx(other.length_um, rel=0.04)
    assert one.area_um2 == pytest.approx(other.area_um2, rel=0.06)
    assert one.acrosome_share == pytest.approx(other.acrosome_share, abs=0.05)
