"""Figures that can be worked out by hand."""

import numpy as np
import pytest

from services.evaluation.calibration import calibration_error
from triton_models.training.reports.metrics import (
    classifier_metrics,
    intervals,
    paired_test,
    risk_coverage,
    top_share,
    working_point,
)


def confident(chosen: list[int], confidence: list[float], classes: int = 3) -> np.ndarray:
    """Probabilities with the given choice and confidence, the rest shared evenly."""
    table = np.repeat([[(1 - c) / (classes - 1)] for c in confidence], classes, axis=1)
    table[np.arange(len(chosen)), chosen] = confidence
    return table


def test_figures_of_six_cells() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = classifier_metrics(confident([0, 0, 1, 1, 1, 0], [0.9] * 6), labels, ("a", "b", "c"))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["per_class"]["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert found["per_class"]["b"]["f1"] == pytest.approx(0.8)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found["ece"] == pytest.approx(0.9 - 4 / 6)


def test_classes_without_cells_are_left_out_of_the_means() -> None:
    labels = np.array([0, 0, 2])
    found = classifier_metrics(confident([0, 0, 2], [0.8] * 3), labels, ("a", "b", "c"))
    assert found["macro_f1"] == 1.0
    assert list(found["per_class"]) == ["a", "c"]


def test_top_2_counts_the_second_choice() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert top_share(probabilities, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    right = [0] * 80 + [1] * 20
    assert calibration_error(confident(right, [0.8] * 100), np.zeros(100, np.int64)) == pytest.approx(0)


def test_the_interval_holds_the_figure_and_narrows_with_cells() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for cells in (50, 800):
        labels = rng.integers(0, 3, cells)
        chosen = np.where(rng.random(cells) < 0.8, labels, (labels + 1) % 3)
        probabilities = confident(chosen.tolist(), [0.9] * cells)
        low, high = intervals({"one": probabilities}, labels)["one"]["accuracy"]
        assert low <= (chosen == labels).mean() <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_paired_test_tells_better_from_equal() -> None:
    labels = np.tile([0, 1, 2], 40)
    wrong = (labels + 1) % 3
    some, many = labels.copy(), labels.copy()
    some[:5], many[:30] = wrong[:5], wrong[:30]
    better = paired_test(confident(some.tolist(), [0.9] * 120), confident(many.tolist(), [0.9] * 120), labels)
    assert (better["only_first_right"], better["only_second_right"]) == (25, 0)
    assert better["mcnemar_p"] == pytest.approx(2 * 0.5**25)
    assert better["macro_f1_gain_95"][0] > 0
    same = paired_test(confident(some.tolist(), [0.9] * 120), confident(some.tolist(), [0.7] * 120), labels)
    assert same["mcnemar_p"] == 1.0


def test_the_threshold_yields_the_precision_that_was_asked_for() -> None:
    # 60 cells at 0.9 of which 1 is wrong, 40 at 0.6 of which 20 are wrong
    chosen = [0] * 59 + [1] + [0] * 20 + [1] * 20
    probabilities = confident(chosen, [0.9] * 60 + [0.6] * 40)
    labels = np.zeros(100, np.int64)
    point = working_point(probabilities, labels, 0.95)
    assert point is not None
    assert (point.threshold, point.coverage, point.precision) == pytest.approx((0.9, 0.6, 59 / 60))
    everything = working_point(probabilities, labels, 0.7)
    assert everything is not None
    assert everything.coverage == 1.0
    assert working_point(probabilities, labels, 0.99) is None
    thresholds, coverage, risk = risk_coverage(probabilities, labels)
    assert thresholds.tolist() == [0.9, 0.6]
    assert coverage.tolist() == [0.6, 1.0]
    assert risk.tolist() == pytest.approx([1 / 60, 0.21])
