"""The server's fusion and the service's are one formula."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from services.releases.fusion import fuse, weight_text
from services.releases.schema import MEMBERS
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


def loaded(served: ModuleType, folder: Path, alpha: object, temperatures: tuple[float, float] = (1.0, 1.0)) -> object:
    """The model as Triton starts it on a fusion.json with 18 classes."""
    classes = [str(number) for number in range(18)]
    fusion = {"alpha": alpha, "temperatures": dict(zip(MEMBERS, temperatures, strict=True)), "classes": classes}
    (folder / "1").mkdir()
    (folder / "1" / "fusion.json").write_text(json.dumps(fusion))
    config = json.dumps({"parameters": {"classes": {"string_value": ",".join(classes)}}})
    model = served.TritonPythonModel()
    model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": config})
    return model


BY_CLASS = np.linspace(0, 1, 18).tolist()


@pytest.mark.parametrize(
    ("alpha", "first", "second"),
    [(0.5, 1.0, 1.0), (0.35, 1.7, 0.6), (0.0, 1.0, 2.0), (1.0, 3.0, 1.0), (BY_CLASS, 1.7, 0.6)],
)
def test_server_and_service_fuse_alike(
    served: ModuleType, tmp_path: Path, alpha: float | list[float], first: float, second: float
) -> None:
    rng = np.random.default_rng(3)
    z1, z2 = (rng.normal(0, 6, (64, 18)).astype(np.float32) for _ in range(2))
    ours = fuse(z1, z2, alpha=alpha, efficientnetv2_s_temperature=first, resnetv2_50_temperature=second)
    model = loaded(served, tmp_path, alpha, (first, second))
    theirs = served.fuse(z1, z2, model.alpha, *model.temperatures)
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
