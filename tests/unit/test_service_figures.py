"""The figures of the service on cells whose class is known."""

import numpy as np
import pytest

from services.evaluation.service import expected_calibration_error, f1_by_class


def test_f1_is_that_of_every_class_which_occurs_or_is_said() -> None:
    labels, said = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    assert f1_by_class(labels, said) == pytest.approx({0: 2 / 3, 1: 0.5, 2: 0.0})


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 9 + [1])
    assert expected_calibration_error(sure, labels) == pytest.approx(0.0)
    assert expected_calibration_error(sure, 1 - labels) == pytest.approx(0.8)
