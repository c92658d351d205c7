"""The mix of a slide, corrected for the known errors of the networks."""

import numpy as np
import pytest

from services.releases.prevalence import estimate
from services.releases.schema import MEMBERS, Calibration, Fusion, Prior

CLASSES = 3
EVEN = (1 / 3,) * 3


def calibration(spread: float = 0.0, *bias: float) -> Calibration:
    """A temperature of 1 and the given biases, each as uncertain as `spread`."""
    factor = tuple((0.0,) * at + (spread,) for at in range(1 + CLASSES))
    return Calibration(mean=(0.0, *(bias or (0.0,) * CLASSES)), factor=factor, cells=100)


def fusion(prior: Prior | None = None, known: Calibration | None = None) -> Fusion:
    temperatures = dict.fromkeys(MEMBERS, 1.0)
    return Fusion(alpha=0.5, temperatures=temperatures, prior=prior, calibration=known)


def cells(counts: list[int], seed: int = 0) -> np.ndarray:
    """Logits `[N, 3]` of so many cells of each class: log-likelihoods of a measure that tells them none too well."""
    labels = np.repeat(np.arange(CLASSES), counts)
    seen = np.random.default_rng(seed).normal(labels * 1.8, 1.0)
    return -((seen[:, None] - np.arange(CLASSES) * 1.8) ** 2) / 2


def probabilities(fusion: Fusion, logits: np.ndarray) -> np.ndarray:
    return fusion.probabilities({member: logits.astype(np.float32) for member in MEMBERS})


def test_a_rare_class_is_neither_as_rare_nor_as_frequent_as_it_is_counted() -> None:
    known = fusion(known=calibration())
    for counts in ([20, 960, 20], [960, 20, 20]):
        said = probabilities(known, cells(counts))
        raw = np.bincount(said.argmax(1), minlength=CLASSES) / 1000
        found = estimate(said, known)
        assert found is not None
        true = np.array(counts) / 1000
        assert abs(raw - true).max() > 0.1
        assert abs(found.shares - true).max() < 0.03
        assert found.shares.sum() == pytest.approx(1)
        for index in range(CLASSES):
            share, low, high = found.interval(index)
            assert low - 0.01 <= true[index] <= high + 0.01
            assert share == found.shares[index]


def test_the_interval_holds_what_is_not_known_of_the_networks_too() -> None:
    said = probabilities(fusion(), cells([500, 300, 200]))

    def width(spread: float) -> float:
        found = estimate(said, fusion(known=calibration(spread)))
        assert found is not None
        _, low, high = found.interval(0)
        return high - low

    counting = 2 * 1.96 * np.sqrt(0.5 * 0.5 / 1000)
    assert width(0.0) > counting, "classes that are told apart badly are known less well than they are counted"
    assert width(0.5) > 1.5 * width(0.0)


def test_the_mix_that_a_release_is_meant_for_does_not_matter() -> None:
    logits = cells([100, 500, 400])
    prior = Prior(learnt=EVEN, meant=(0.9, 0.06, 0.04), strength=0.8)
    plain, moved = fusion(known=calibration()), fusion(prior, calibration())
    first, second = estimate(probabilities(plain, logits), plain), estimate(probabilities(moved, logits), moved)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.shares, second.shares, atol=1e-3)


def test_a_known_leaning_is_undone() -> None:
    logits = cells([300, 400, 300])
    leaning = probabilities(fusion(), logits + np.array([2.0, 0.0, 0.0]))
    blind, knowing = (estimate(leaning, fusion(known=calibration(0.0, *bias))) for bias in ((0, 0, 0), (-2.0, 0, 0)))
    assert blind is not None
    assert knowing is not None
    assert blind.shares[0] > 0.4
    assert knowing.shares[0] == pytest.approx(0.3, abs=0.05)


def test_the_same_cells_have_the_same_answer_and_sure_ones_no_trouble() -> None:
    known = fusion(known=calibration(0.2))
    said = np.eye(CLASSES, dtype=np.float32)[[0, 0, 1]]
    first, second = estimate(said, known), estimate(said, known)
    assert first is not None
    assert second is not None
    assert (first.drawn == second.drawn).all()
    np.testing.assert_allclose(first.shares, [2 / 3, 1 / 3, 0], atol=1e-3)
    assert np.isfinite(first.drawn).all()


def test_without_a_calibration_nothing_is_corrected() -> None:
    assert estimate(np.eye(CLASSES, dtype=np.float32), fusion()) is None
    with pytest.raises(ValueError, match="row per parameter"):
        Calibration(mean=(0.0, 0.0), factor=((1.0,), (1.0,)), cells=3)
    with pytest.raises(ValueError, match=r"calibration\.mean has 4"):
        fusion(known=calibration()).check_classes(18)
