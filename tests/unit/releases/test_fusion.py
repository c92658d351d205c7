"""The server's fusion and the service's are one formula."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from services.releases.fusion import fuse, weight_text
from services.releases.schema import MEMBERS, Fusion, Prior
from tests.places import CHECKOUT

SERVED = CHECKOUT / "triton_models" / "repository" / "logit_fusion" / "model.py"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that Triton loads, without Triton."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    monkeypatch.syspath_prepend(SERVED.parents[1])  # as Triton does with the folder of the model
    spec = importlib.util.spec_from_file_location("served_logit_fusion", SERVED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(
    served: ModuleType,
    folder: Path,
    alpha: object,
    temperatures: tuple[float, float] = (1.0, 1.0),
    prior: Prior | None = None,
) -> object:
    """The model as Triton starts it on a fusion.json with 18 classes."""
    classes = [str(number) for number in range(18)]
    fusion = {"alpha": alpha, "temperatures": dict(zip(MEMBERS, temperatures, strict=True)), "classes": classes}
    fusion["prior"] = None if prior is None else prior.model_dump()
    (folder / "1").mkdir()
    (folder / "1" / "fusion.json").write_text(json.dumps(fusion))
    config = json.dumps({"parameters": {"classes": {"string_value": ",".join(classes)}}})
    model = served.TritonPythonModel()
    model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": config})
    return model


BY_CLASS = np.linspace(0, 1, 18).tolist()
EVEN = (1 / 18,) * 18
RISING = tuple((np.arange(1, 19) / np.arange(1, 19).sum()).tolist())
FOR_RISING = Prior(learnt=EVEN, meant=RISING, strength=0.75)


@pytest.mark.parametrize("prior", [None, FOR_RISING])
@pytest.mark.parametrize(
    ("alpha", "first", "second"),
    [(0.5, 1.0, 1.0), (0.35, 1.7, 0.6), (0.0, 1.0, 2.0), (1.0, 3.0, 1.0), (BY_CLASS, 1.7, 0.6)],
)
def test_server_and_service_fuse_alike(
    served: ModuleType, tmp_path: Path, alpha: float | list[float], first: float, second: float, prior: Prior | None
) -> None:
    rng = np.random.default_rng(3)
    z1, z2 = (rng.normal(0, 6, (64, 18)).astype(np.float32) for _ in range(2))
    fusion = Fusion(alpha=alpha, temperatures=dict(zip(MEMBERS, (first, second), strict=True)), prior=prior)
    ours = fusion.probabilities(dict(zip(MEMBERS, (z1, z2), strict=True)))
    model = loaded(served, tmp_path, alpha, (first, second), prior)
    theirs = served.fuse(z1, z2, model.alpha, *model.temperatures, model.shift)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_fusion_is_the_softmax_of_the_weighted_logits() -> None:
    z1, z2 = np.float32([[2.0, 0.0]]), np.float32([[0.0, 4.0]])
    odds = np.exp(0.25 * 2.0 / 2.0 - 0.75 * 4.0 / 3.0)
    fused = fuse(z1, z2, alpha=0.25, efficientnetv2_s_temperature=2.0, resnetv2_50_temperature=3.0)
    np.testing.assert_allclose(fused, [[odds / (1 + odds), 1 / (1 + odds)]], rtol=1e-6)


def test_alpha_weighs_the_efficientnet() -> None:
    z1, z2 = np.float32([[9.0, 0.0]]), np.float32([[0.0, 9.0]])
    assert fuse(z1, z2, alpha=0.9).argmax() == 0
    assert fuse(z1, z2, alpha=0.1).argmax() == 1


def test_one_alpha_a_class_weighs_each_class_by_its_own() -> None:
    z1, z2 = np.float32([[2.0, 5.0, 1.0]]), np.float32([[7.0, 3.0, 4.0]])
    fused = fuse(z1, z2, alpha=[1.0, 0.0, 0.5], efficientnetv2_s_temperature=2.0, resnetv2_50_temperature=3.0)
    odds = np.exp([2.0 / 2, 3.0 / 3, 0.5 * 1.0 / 2 + 0.5 * 4.0 / 3])
    np.testing.assert_allclose(fused, [odds / odds.sum()], rtol=1e-6)


@pytest.mark.parametrize("wrong", [BY_CLASS[:17], [0.5], [*BY_CLASS[:17], 1.1], [-0.1, *BY_CLASS[1:]], 1.1, [BY_CLASS]])
def test_both_refuse_what_is_no_weight_of_these_classes(served: ModuleType, tmp_path: Path, wrong: object) -> None:
    z = np.zeros((1, 18), np.float32)
    with pytest.raises(ValueError, match="alpha"):
        fuse(z, z, alpha=wrong)
    with pytest.raises(ValueError, match="alpha"):
        loaded(served, tmp_path, wrong)


def test_a_prior_moves_the_odds_from_the_mix_learnt_to_the_mix_meant() -> None:
    z = np.log(np.float32([[0.5, 0.3, 0.2]]))
    prior = Prior(learnt=(0.2, 0.3, 0.5), meant=(0.6, 0.3, 0.1), strength=1.0)
    odds = np.array([0.5 * 0.6 / 0.2, 0.3, 0.2 * 0.1 / 0.5])  # Bayes' rule
    np.testing.assert_allclose(fuse(z, z, alpha=0.5, shift=prior.shift()), [odds / odds.sum()], rtol=1e-5)
    half = prior.model_copy(update={"strength": 0.5})
    np.testing.assert_allclose(half.shift(), prior.shift() / 2)


@pytest.mark.parametrize(
    ("prior", "what"),
    [
        ({"learnt": (0.5, 0.5), "meant": (0.9, 0.2), "strength": 1}, "sum to 1"),
        ({"learnt": (0.5, 0.5), "meant": (1.0, 0.0), "strength": 1}, "meant"),
        ({"learnt": (0.5, 0.5), "meant": (0.9, 0.1), "strength": 1.5}, "strength"),
    ],
)
def test_what_is_no_prior_is_refused(prior: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Prior.model_validate(prior)


def test_a_prior_of_other_classes_and_a_document_without_one() -> None:
    prior = Prior(learnt=(0.5, 0.5), meant=(0.9, 0.1), strength=1)
    fusion = Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0), prior=prior)
    fusion.check_classes(2)
    with pytest.raises(ValueError, match=r"prior\.learnt has 2"):
        fusion.check_classes(18)
    without = Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0))
    assert "prior" not in without.model_dump(), "documents on record from before would be taken for other releases"


def test_a_weight_is_told_in_a_few_words() -> None:
    assert weight_text(0.55) == "0.55"
    assert weight_text([0.5, 0.1234, 0.75]) == weight_text((0.5, 0.1234, 0.75)) == "0.123 to 0.75, one per class"


def test_huge_logits_stay_finite(served: ModuleType) -> None:
    z = np.float32([[1e4, -1e4, 0.0]])
    assert np.isfinite(fuse(z, z, alpha=0.5)).all()
    assert np.isfinite(served.fuse(z, z, 0.5, 1.0, 1.0)).all()


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"alpha": -0.1}, {"alpha": 0.5, "resnetv2_50_temperature": 0.0}])
def test_senseless_weights_are_refused(wrong: dict[str, float]) -> None:
    z = np.zeros((1, 18), np.float32)
    with pytest.raises(ValueError, match="alpha"):
        fuse(z, z, **wrong)
