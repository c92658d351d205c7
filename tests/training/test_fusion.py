"""α is chosen on calibrated logits; other forms are kept only if they win where they were not fitted."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from services.inference.fusion import fuse
from triton_models.release.schema import MEMBERS
from triton_models.training.fuse import fuse_logits
from triton_models.training.fusion import (
    Form,
    FusionObjective,
    Weight,
    cross_entropy,
    fit_fusion,
    fit_temperature,
    macro_scores,
    softmax,
    sweep,
)
from triton_models.training.logits import LabelledLogits, LogitsDiffer, check_alike

CLASSES = 4


def members(
    cells: int, seed: int = 0, first_scale: float = 1.0, second_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated logits of two members whose errors are independent, times a scale each; and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, cells)
    truth = np.eye(CLASSES)[labels] * 2.5
    first, second = (truth + rng.normal(0, 1.6, truth.shape) for _ in range(2))
    return (first * first_scale).astype(np.float32), (second * second_scale).astype(np.float32), labels


def test_the_temperature_undoes_a_scale() -> None:
    first, _, labels = members(4000)
    plain = fit_temperature(first.astype(np.float64), labels)
    scaled = fit_temperature(first.astype(np.float64) * 7, labels)
    assert scaled == pytest.approx(7 * plain, rel=1e-3)
    assert cross_entropy(first / plain, labels) <= cross_entropy(first.astype(np.float64), labels)


def test_alpha_compares_like_with_like_whatever_the_scale_of_a_member() -> None:
    plain = fit_fusion(*members(600), repeats=1)
    loud = fit_fusion(*members(600, first_scale=20), repeats=1)
    assert loud.alpha == pytest.approx(plain.alpha, abs=0.011)
    assert 0.2 < plain.alpha < 0.8


def test_fused_is_not_below_the_better_member_where_alpha_was_chosen() -> None:
    for objective in FusionObjective:
        first, second, labels = members(300, seed=4)
        fitted = fit_fusion(first, second, labels, objective, repeats=1)
        values = fitted.curve.values[objective]
        at = int(np.argmin(abs(fitted.curve.alpha - fitted.alpha)))
        assert values[at] == values.max() >= max(values[0], values[-1])


def test_a_useless_member_gets_no_weight() -> None:
    first, _, labels = members(500, seed=2)
    noise = np.random.default_rng(5).normal(0, 3, first.shape).astype(np.float32)
    assert fit_fusion(first, noise, labels, repeats=1).alpha > 0.7
    assert fit_fusion(noise, first, labels, repeats=1).alpha < 0.3


def test_one_weight_a_class_wins_where_each_member_knows_its_own_classes() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, 1200)
    knows = np.array([[2.5, 2.5, 0.0, 0.0], [0.0, 0.0, 2.5, 2.5]])
    noise = np.array([[0.7, 0.7, 2.5, 2.5], [2.5, 2.5, 0.7, 0.7]])
    first, second = (
        (np.eye(CLASSES)[labels] * knows[m] + rng.normal(0, 1, (1200, CLASSES)) * noise[m]).astype(np.float32)
        for m in range(2)
    )
    fitted = fit_fusion(first, second, labels, repeats=3)
    assert fitted.best_form is Form.PER_CLASS
    assert (fitted.best.alpha[:2] > 0.6).all()
    assert (fitted.best.alpha[2:] < 0.4).all()


def test_the_scalar_is_kept_where_nothing_else_helps() -> None:
    kept = [fit_fusion(*members(300, seed=seed), repeats=2, seed=seed).best_form for seed in range(6)]
    assert kept.count(Form.SCALAR) >= 5


def test_the_adaptive_form_gives_more_to_the_surer_member() -> None:
    first, second = np.array([[4.0, 0, 0], [0.1, 0, 0]]), np.array([[0, 0.1, 0], [0, 4.0, 0]])
    weight = Weight(Form.ADAPTIVE, np.array([0.5]), slope=6.0)
    joined, plain = weight.join(first, second), Weight(Form.SCALAR, np.array([0.5])).join(first, second)
    assert joined[0, 0] > plain[0, 0]
    assert joined[1, 1] > plain[1, 1]


def test_macro_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    labels, chosen = rng.integers(0, 3, 80), rng.integers(0, 4, 80)
    found = macro_scores(chosen, labels, CLASSES)
    wanted = precision_recall_fscore_support(labels, chosen, average="macro", labels=[0, 1, 2], zero_division=0)
    assert [found[name] for name in (FusionObjective.PRECISION, FusionObjective.RECALL, FusionObjective.F1)] == (
        pytest.approx(list(wanted[:3]))
    )


def test_the_curve_ends_at_the_members() -> None:
    first, second, labels = members(200)
    values = sweep(first, second, labels).values[FusionObjective.F1]
    assert values[0] == macro_scores(second.argmax(1), labels, CLASSES)[FusionObjective.F1]
    assert values[-1] == macro_scores(first.argmax(1), labels, CLASSES)[FusionObjective.F1]


def _triton_model(folder: Path, classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module that Triton runs, outside Triton."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", types.ModuleType("triton_python_backend_utils"))
    path = Path(__file__).parents[2] / "triton_models" / "repository" / "logit_fusion" / "model.py"
    spec = importlib.util.spec_from_file_location("logit_fusion_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fusion_folder_is_what_triton_and_numpy_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, labels = members(400, seed=3, first_scale=3)
    classes = tuple("abcd")
    names = tuple(map(str, range(400)))
    fitted, choice = fuse_logits(
        LabelledLogits(classes, names, labels, first), LabelledLogits(classes, names, labels, second), tmp_path
    )
    served = json.loads((tmp_path / "fusion.json").read_text())
    model = _triton_model(tmp_path, classes, monkeypatch)
    t1, t2 = (served["temperatures"][member] for member in MEMBERS)
    by_triton = model.fuse(first, second, served["alpha"], t1, t2)
    by_numpy = fuse(first, second, alpha=served["alpha"], efficientnetv2_s_temperature=t1, resnetv2_50_temperature=t2)
    m1, m2 = fitted.member_temperatures
    joined = fitted.scalar.join(first.astype(np.float64) / m1, second.astype(np.float64) / m2)
    as_chosen = softmax(joined / fitted.fused_temperature)
    assert np.abs(by_triton - by_numpy).max() < 1e-5
    assert np.abs(by_triton - as_chosen).max() < 1e-5
    assert choice["ece"]["fused"]["after"] < 0.06
    assert (tmp_path / "curve.svg").read_text().count("<svg") == 1


def test_logits_of_other_images_are_not_fused() -> None:
    first, _, labels = members(10)
    one = LabelledLogits(("a", "b", "c", "d"), tuple("0123456789"), labels, first)
    with pytest.raises(LogitsDiffer, match="other images"):
        check_alike(one, LabelledLogits(one.classes, tuple("1234567890"), labels, first))
    with pytest.raises(LogitsDiffer, match="other classes"):
        check_alike(one, LabelledLogits(("a", "b", "d", "c"), one.names, labels, first))
