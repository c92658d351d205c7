"""α is chosen on calibrated logits; other forms are kept only if they win where they were not fitted."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.evaluation.calibration import calibration_error
from services.releases.derive import derive_release
from services.releases.fusion import fuse
from services.releases.schema import MEMBERS, Prior
from services.taxonomy import CLASS_NAMES
from tests.places import CHECKOUT
from tests.small_release import build_small_release, coloured_crops
from triton_models.training.config import Objective
from triton_models.training.fusion.calibration import fit_calibration
from triton_models.training.fusion.curve import SWEEP, FusionObjective, macro_scores, sweep
from triton_models.training.fusion.fitting import (
    Weight,
    Weighting,
    cross_entropy,
    fit_fusion,
    fit_scalar,
    fit_temperature,
    likeliest_alpha,
    softmax,
)
from triton_models.training.fusion.fuse import fuse_logits
from triton_models.training.fusion.prior import MixUnknown, f1_by_mix, fit_strength, prior_of
from triton_models.training.learning.logits import LabelledLogits, LogitsDiffer, check_alike
from triton_models.training.reports.evaluation import evaluate_release
from triton_models.training.reports.released import open_release
from triton_models.training.reports.report import write_report

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
    assert loud.scalar_alpha == pytest.approx(plain.scalar_alpha, abs=0.011)
    assert 0.2 < plain.scalar_alpha < 0.8


def test_fused_is_not_below_the_better_member_where_alpha_was_chosen() -> None:
    for objective in FusionObjective:
        first, second, labels = members(300, seed=4)
        fitted = fit_fusion(first, second, labels, objective, repeats=1)
        values = fitted.curve.values[objective]
        at = int(np.argmin(abs(fitted.curve.alpha - fitted.scalar_alpha)))
        assert fitted.curve.as_good(objective)[at]
        assert values[at] >= max(values[0], values[-1])
        assert values[at] >= values.max() - fitted.curve.errors[objective][at]


@pytest.mark.parametrize("objective", FusionObjective)
def test_the_error_of_a_lead_is_that_of_cells_drawn_again(objective: FusionObjective) -> None:
    first, second, labels = members(400, seed=8, first_scale=1.5)
    curve = sweep(first, second, labels)
    best = int(np.argmin(curve.errors[objective] + (curve.values[objective] < curve.values[objective].max())))
    draw = np.random.default_rng(1)
    drawn = [draw.integers(0, len(labels), len(labels)) for _ in range(1000)]
    for at in (0, 60, 200):
        said = {a: (SWEEP[a] * first + (1 - SWEEP[a]) * second).argmax(1) for a in (at, best)}
        leads = [
            macro_scores(said[best][c], labels[c], CLASSES)[objective]
            - macro_scores(said[at][c], labels[c], CLASSES)[objective]
            for c in drawn
        ]
        assert curve.errors[objective][at] == pytest.approx(np.std(leads), rel=0.1)
    assert curve.errors[objective][best] == 0


def test_the_likeliest_mix_is_found_whatever_the_scales() -> None:
    first, second, labels = members(500, seed=11)
    plain = likeliest_alpha(first.astype(np.float64), second.astype(np.float64), labels)
    by_search = min(SWEEP, key=lambda a: _at_its_temperature(a * first + (1 - a) * second, labels))
    assert plain == pytest.approx(by_search, abs=0.0051)
    loud = likeliest_alpha(3 * first.astype(np.float64), second.astype(np.float64), labels)
    assert loud / (1 - loud) == pytest.approx(plain / (1 - plain) / 3, rel=0.01), "the same mix, of a louder member"


def _at_its_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    return cross_entropy(logits / fit_temperature(logits, labels), labels)


def test_on_other_cells_alpha_spreads_less_and_does_as_well_as_the_best_of_the_curve() -> None:
    tests = members(6000, seed=99)
    found: dict[str, list[tuple[float, float]]] = {"best of the curve": [], "as released": []}
    for seed in range(40):
        first, second, labels = (part.astype(np.float64) for part in members(120, seed=seed))
        labels = labels.astype(np.int64)
        curve = sweep(first, second, labels).values[FusionObjective.F1]
        ways = {
            "best of the curve": float(SWEEP[curve.argmax()]),
            "as released": float(fit_scalar(first, second, labels, FusionObjective.F1).alpha[0]),
        }
        for way, alpha in ways.items():
            said = (alpha * tests[0] + (1 - alpha) * tests[1]).argmax(1)
            found[way].append((alpha, macro_scores(said, tests[2], CLASSES)[FusionObjective.F1]))
    spread = {way: np.std([alpha for alpha, _ in pairs]) for way, pairs in found.items()}
    worst = {way: min(f1 for _, f1 in pairs) for way, pairs in found.items()}
    assert spread["as released"] < 0.7 * spread["best of the curve"]
    assert worst["as released"] > worst["best of the curve"]
    alone = max(macro_scores(z.argmax(1), tests[2], CLASSES)[FusionObjective.F1] for z in tests[:2])
    assert worst["as released"] > alone


def test_a_useless_member_gets_no_weight() -> None:
    first, _, labels = members(500, seed=2)
    noise = np.random.default_rng(5).normal(0, 3, first.shape).astype(np.float32)
    assert fit_fusion(first, noise, labels, repeats=1).alpha > 0.7
    assert fit_fusion(noise, first, labels, repeats=1).alpha < 0.3


def specialists() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two members that know two classes each; and labels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, 1200)
    knows = np.array([[2.5, 2.5, 0.0, 0.0], [0.0, 0.0, 2.5, 2.5]])
    noise = np.array([[0.7, 0.7, 2.5, 2.5], [2.5, 2.5, 0.7, 0.7]])
    first, second = (
        (np.eye(CLASSES)[labels] * knows[m] + rng.normal(0, 1, (1200, CLASSES)) * noise[m]).astype(np.float32)
        for m in range(2)
    )
    return first, second, labels


def test_one_weight_a_class_wins_and_is_released_where_each_member_knows_its_own_classes() -> None:
    fitted = fit_fusion(*specialists(), repeats=3)
    assert fitted.best_weighting is fitted.released.weighting is Weighting.PER_CLASS
    assert (fitted.released.alpha[:2] > 0.6).all()
    assert (fitted.released.alpha[2:] < 0.4).all()
    at_best_scalar = fitted.curve.values[FusionObjective.F1].max()
    assert fitted.at_alpha[FusionObjective.F1] > at_best_scalar


def test_the_scalar_is_kept_where_nothing_else_helps() -> None:
    fitted = [fit_fusion(*members(300, seed=seed), repeats=2, seed=seed) for seed in range(6)]
    assert [one.best_weighting for one in fitted].count(Weighting.SCALAR) >= 5
    assert all((one.released is one.scalar) == (not one.comparisons[Weighting.PER_CLASS].wins) for one in fitted)
    assert sum(isinstance(one.alpha, float) for one in fitted) >= 5


def test_the_adaptive_form_is_never_released() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES, 900)
    truth, nothing = np.eye(CLASSES)[labels] * 6, np.zeros((900, CLASSES))
    sure = rng.random(900) < 0.5  # each member sees half of the cells, and knows which
    first, second = (
        (np.where(sees[:, None], truth, nothing) + rng.normal(0, 1.2, truth.shape)).astype(np.float32)
        for sees in (sure, ~sure)
    )
    fitted = fit_fusion(first, second, labels, repeats=2)
    assert fitted.best_weighting is Weighting.ADAPTIVE
    assert fitted.released is fitted.scalar
    assert fitted.document()["released_weighting"] == "scalar"


def test_the_adaptive_form_gives_more_to_the_surer_member() -> None:
    first, second = np.array([[4.0, 0, 0], [0.1, 0, 0]]), np.array([[0, 0.1, 0], [0, 4.0, 0]])
    weight = Weight(Weighting.ADAPTIVE, np.array([0.5]), slope=6.0)
    joined, plain = weight.join(first, second), Weight(Weighting.SCALAR, np.array([0.5])).join(first, second)
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
    path = CHECKOUT / "triton_models" / "repository" / "logit_fusion" / "model.py"
    monkeypatch.syspath_prepend(path.parents[1])
    spec = importlib.util.spec_from_file_location("logit_fusion_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("weighting", [Weighting.SCALAR, Weighting.PER_CLASS])
def test_the_fusion_folder_is_what_triton_and_numpy_read_alike(
    weighting: Weighting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, labels = specialists() if weighting is Weighting.PER_CLASS else members(400, seed=3, first_scale=3)
    classes = tuple("abcd")
    names = tuple(map(str, range(len(labels))))
    fitted, choice = fuse_logits(
        LabelledLogits(classes, names, labels, first), LabelledLogits(classes, names, labels, second), tmp_path
    )
    served = json.loads((tmp_path / "fusion.json").read_text())
    model = _triton_model(tmp_path, classes, monkeypatch)
    t1, t2 = (served["temperatures"][member] for member in MEMBERS)
    by_triton = model.fuse(first, second, served["alpha"], t1, t2)
    by_numpy = fuse(first, second, alpha=served["alpha"], efficientnetv2_s_temperature=t1, resnetv2_50_temperature=t2)
    m1, m2 = fitted.member_temperatures
    joined = fitted.released.join(first.astype(np.float64) / m1, second.astype(np.float64) / m2)
    as_chosen = softmax(joined / fitted.fused_temperature)
    assert np.abs(by_triton - by_numpy).max() < 1e-5
    assert np.abs(by_triton - as_chosen).max() < 1e-5
    assert choice["ece"]["fused"]["after"] < 0.06
    assert (
        served["alpha"]
        == choice["alpha"]
        == (fitted.released.alpha.tolist() if weighting is Weighting.PER_CLASS else fitted.scalar_alpha)
    )
    assert choice["released_weighting"] == weighting
    scores = macro_scores(by_numpy.argmax(1), labels, CLASSES)
    assert choice["at_alpha"] == {str(name): value for name, value in scores.items()}
    at = choice["curve"]["alpha"].index(choice["scalar_alpha"])
    lost = max(choice["curve"]["macro_f1"]) - choice["curve"]["macro_f1"][at]
    assert lost <= choice["curve"]["standard_errors"]["macro_f1"][at] + 1e-12
    as_good = np.array(choice["curve"]["alpha"])[choice["curve"]["as_good"]]
    assert choice["scalar_alpha"] in as_good
    assert choice["alpha_as_good"] == [as_good.min(), as_good.max()]
    assert (tmp_path / "curve.svg").read_text().count("<svg") == 1


def test_a_release_that_weighs_by_class_is_evaluated_as_it_is_served(tmp_path: Path) -> None:
    kinds = ("Normal", "PinHead", "RoundHead")
    by_class, temperatures = [1.0, 0.0, 0.5], dict(zip(MEMBERS, (0.5, 2.0), strict=True))
    build_small_release(tmp_path / "scalar", classes=kinds)
    (tmp_path / "fusion.json").write_text(json.dumps({"alpha": by_class, "temperatures": temperatures}))
    derive_release(tmp_path / "scalar", tmp_path / "release", fusion_json=tmp_path / "fusion.json")
    for number, crop in enumerate(coloured_crops(30, seed=2)):
        folder = tmp_path / "cells" / kinds[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(folder / f"{number:02}.png")

    classifier = open_release(tmp_path / "release", threads=1)
    evaluation = evaluate_release(classifier, tmp_path / "cells")
    assert json.loads(json.dumps(evaluation.document))["alpha"] == by_class
    logits = classifier.logits(sorted((tmp_path / "cells").rglob("*.png")))
    first, second = (logits[member].astype(np.float64) for member in MEMBERS)
    alpha = np.array(by_class)
    wanted = softmax(alpha / 0.5 * first + (1 - alpha) / 2.0 * second)
    np.testing.assert_allclose(evaluation.probabilities["fused"], wanted, atol=1e-5)
    before = evaluation.document["classifiers"]["fused"]["ece_before_temperature"]
    assert before == pytest.approx(calibration_error(softmax(alpha * first + (1 - alpha) * second), evaluation.labels))
    write_report(evaluation, tmp_path / "report.html")
    assert "α = 0 to 1, one per class" in (tmp_path / "report.html").read_text()


def test_the_prior_is_what_the_loss_saw() -> None:
    counts = dict.fromkeys(CLASS_NAMES, 100) | {"Normal": 300}
    even, seen = np.full(18, 1 / 18), np.array(list(counts.values())) / 2000
    normal = CLASS_NAMES.index("Normal")
    assert prior_of(counts, Objective()).learnt == pytest.approx(even)
    assert prior_of(counts, Objective(class_weights="none")).learnt == pytest.approx(seen)
    effective = prior_of(counts, Objective(class_weights="effective")).learnt
    assert even[normal] < effective[normal] < seen[normal]
    balanced = Objective(class_weights="none", balanced_sampler=True)
    adjusted = Objective(class_weights="none", loss="logit_adjusted")
    assert prior_of(counts, balanced).learnt == prior_of(counts, adjusted).learnt == pytest.approx(even)
    with pytest.raises(MixUnknown, match="18 classes"):
        prior_of({"a": 1, "b": 2}, Objective())
    with pytest.raises(MixUnknown, match="no cell of PinHead"):
        prior_of(counts | {"PinHead": 0}, Objective())


def test_logits_are_moved_as_far_as_helps_on_both_mixes() -> None:
    first, _, labels = members(4000)
    logits = first.astype(np.float64) / fit_temperature(first.astype(np.float64), labels)
    prior = Prior(learnt=(0.25,) * CLASSES, meant=(0.9, 0.06, 0.03, 0.01), strength=1.0)
    chosen = fit_strength(logits, labels, prior)
    assert 0 < chosen.strength < 1, "calibrated logits: all the way is best on one mix, none on the other"
    by_strength = {s: f1_by_mix(logits, labels, prior.model_copy(update={"strength": s})) for s in (0.0, 1.0)}
    assert by_strength[1.0]["meant"] > by_strength[0.0]["meant"] + 0.03
    assert by_strength[1.0]["equal"] < by_strength[0.0]["equal"]
    found = f1_by_mix(logits, labels, chosen)
    assert sum(found.values()) >= max(sum(ends.values()) for ends in by_strength.values())


def test_a_calibration_undoes_a_leaning_and_knows_how_surely() -> None:
    few, many = (members(cells, seed=6)[::2] for cells in (400, 3200))
    leaning = np.array([1.5, 0.0, 0.0, -0.5])
    fitted = {
        len(labels): fit_calibration(2 * first.astype(np.float64) + leaning, labels) for first, labels in (few, many)
    }
    plain = fit_calibration(many[0].astype(np.float64), many[1])
    assert fitted[3200].mean[0] == pytest.approx(plain.mean[0] + np.log(2), abs=0.05)
    moved = np.array(fitted[3200].mean[1:]) - np.array(plain.mean[1:])
    np.testing.assert_allclose(
        moved - moved.mean(), -(leaning - leaning.mean()) / np.exp(fitted[3200].mean[0]), atol=0.1
    )
    spread = {cells: np.linalg.norm([row[-1] for row in one.factor]) for cells, one in fitted.items()}
    assert 2 < spread[400] / spread[3200] < 4, "as 1 over the square root of cells"


def test_logits_of_other_images_are_not_fused() -> None:
    first, _, labels = members(10)
    one = LabelledLogits(("a", "b", "c", "d"), tuple("0123456789"), labels, first)
    with pytest.raises(LogitsDiffer, match="different images"):
        check_alike(one, LabelledLogits(one.classes, tuple("1234567890"), labels, first))
    with pytest.raises(LogitsDiffer, match="different classes"):
        check_alike(one, LabelledLogits(("a", "b", "d", "c"), one.names, labels, first))
