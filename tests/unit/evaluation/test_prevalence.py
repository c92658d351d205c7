"""Slides of known mixtures, put together from cells of known class."""

import numpy as np
import pytest

from services.evaluation.prevalence import NotScorable, mixtures, score_prevalence
from services.releases.schema import MEMBERS, Calibration, Fusion
from services.taxonomy import CLASS_NAMES, NORMAL

CLASSES = len(CLASS_NAMES)


def every(labels: np.ndarray) -> np.ndarray:
    return np.ones(len(labels), np.bool_)


def test_each_mixture_has_the_normal_forms_of_its_name() -> None:
    known = mixtures()
    assert list(known) == ["1% normal", "4% normal", "10% normal", "20% normal", "equal", "published"]
    assert [mix[NORMAL.index] for mix in list(known.values())[:4]] == pytest.approx([0.01, 0.04, 0.1, 0.2])
    assert all(mix.sum() == pytest.approx(1) and (mix > 0).all() for mix in known.values())


def test_what_is_corrected_is_nearer_to_the_truth_than_what_is_counted() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(CLASSES), 150)
    # A quarter of the normal forms is taken for another class, as 3 % of the others are for normal ones.
    told = np.full((CLASSES, CLASSES), 0.03)
    told[:, NORMAL.index] = 0.03
    np.fill_diagonal(told, 0.0)
    told[NORMAL.index] *= 0.25 / told[NORMAL.index].sum()
    np.fill_diagonal(told, 1 - told.sum(1))
    said = np.array([rng.choice(CLASSES, p=told[label]) for label in labels])
    probabilities = (told[:, said] / told[:, said].sum(0)).T.astype(np.float32)  # calibrated, on equal classes
    count = 1 + CLASSES
    factor = tuple((0.0,) * at + (0.05,) for at in range(count))
    known = Calibration(mean=(0.0,) * count, factor=factor, cells=len(labels))
    fusion = Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0), calibration=known)
    result = {row.mixture: row for row in score_prevalence(probabilities, labels, every(labels), fusion, slides=12)}
    few, many = result["1% normal"], result["20% normal"]
    assert few.raw.bias > 2
    assert abs(few.corrected.bias) < few.raw.bias / 2
    assert many.raw.bias < -1.5
    assert abs(many.corrected.bias) < abs(many.raw.bias) / 2
    assert many.corrected.coverage >= 0.8
    assert many.corrected.width > many.raw.width


def test_slides_without_cells_of_a_class_are_not_put_together() -> None:
    fusion = Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0))
    labels = np.arange(CLASSES - 1)
    with pytest.raises(NotScorable, match="no calibration"):
        score_prevalence(np.eye(CLASSES, dtype=np.float32)[:-1], labels, every(labels), fusion)
    known = Calibration(mean=(0.0,) * 19, factor=tuple((0.0,) * at + (0.1,) for at in range(19)), cells=17)
    calibrated = fusion.model_copy(update={"calibration": known})
    with pytest.raises(NotScorable, match=CLASS_NAMES[-1]):
        score_prevalence(np.eye(CLASSES, dtype=np.float32)[:-1], labels, every(labels), calibrated)


def test_what_does_not_count_is_drawn_and_left_out_of_both_shares() -> None:
    """Cells that the border cuts are all taken for normal forms; the rule leaves them out."""
    rng = np.random.default_rng(5)
    labels = np.tile(np.arange(CLASSES), 100)
    counted = rng.random(len(labels)) < 0.8
    probabilities = np.full((len(labels), CLASSES), 0.001, np.float32)
    probabilities[np.arange(len(labels)), np.where(counted, labels, NORMAL.index)] = 0.983
    known = Calibration(mean=(0.0,) * 19, factor=tuple((0.0,) * at + (0.01,) for at in range(19)), cells=len(labels))
    fusion = Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0), calibration=known)
    all_of_them, without = (
        {row.mixture: row for row in score_prevalence(probabilities, labels, mask, fusion, slides=2)}
        for mask in (every(labels), counted)
    )
    for mixture in ("1% normal", "20% normal"):
        assert all_of_them[mixture].raw.bias > 10
        assert abs(without[mixture].raw.bias) < 5
