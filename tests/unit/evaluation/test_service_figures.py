"""The figures of the service on cells whose class is known."""

import numpy as np
import pytest

from services.evaluation.calibration import bands, calibration_error, error_if_calibrated
from services.evaluation.mixes import f1_by_class, macro_f1, mixes_of
from services.taxonomy import CLASS_NAMES


def test_f1_is_that_of_every_class_which_occurs_or_is_said() -> None:
    labels, said = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    assert f1_by_class(labels, said) == pytest.approx({0: 2 / 3, 1: 0.5, 2: 0.0})


def test_another_mix_is_what_cells_of_that_mix_would_have_shown() -> None:
    draw = np.random.default_rng(2)
    said_of = np.array([[0.9, 0.1, 0.0], [0.05, 0.95, 0.0], [0.0, 0.2, 0.8]])  # what is said of each class

    def cells(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(3), counts)
        return labels, np.array([draw.choice(3, p=said_of[label]) for label in labels])

    mix = (0.02, 0.9, 0.08)
    even, mixed = cells([4000] * 3), cells([400, 18_000, 1600])
    assert macro_f1(*even, mix) == pytest.approx(macro_f1(*mixed), abs=0.02)
    assert macro_f1(*mixed, (1 / 3,) * 3) == pytest.approx(macro_f1(*even), abs=0.02)
    assert macro_f1(*even) - macro_f1(*mixed) > 0.1, "a rare class is drowned by the errors of a common one"


def test_other_classes_than_the_18_have_no_published_mix() -> None:
    assert set(mixes_of(("a", "b"))) == {"equal"}
    assert all(sum(mix) == pytest.approx(1) for mix in mixes_of(CLASS_NAMES).values())
    published = mixes_of(CLASS_NAMES)["published"]
    assert max(published) / min(published) == pytest.approx(44, abs=0.5)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 9 + [1])
    assert calibration_error(sure, labels) == pytest.approx(0.0)
    assert calibration_error(sure, 1 - labels) == pytest.approx(0.8)


def test_bands_hold_as_many_cells_each_and_never_part_cells_of_one_confidence() -> None:
    sure = np.linspace(0.5, 1, 150)
    found = bands(np.stack([sure, 1 - sure], 1), np.zeros(150, np.int64))
    assert [band.cells for band in found] == [10] * 15
    alike = np.tile([0.8, 0.2], (100, 1))
    assert [band.cells for band in bands(alike, np.zeros(100, np.int64))] == [100]


def test_chance_alone_leaves_an_error_that_shrinks_with_cells() -> None:
    draw = np.random.default_rng(5)
    chance = {}
    for cells in (400, 40_000):
        sure = draw.uniform(0.5, 1, cells)
        probabilities = np.stack([sure, 1 - sure], 1)
        chance[cells] = error_if_calibrated(probabilities)
        labels = (draw.random(cells) > sure).astype(np.int64)
        assert calibration_error(probabilities, labels) == pytest.approx(chance[cells], rel=0.5)
    assert chance[40_000] < chance[400] / 5
