"""The form `torch-fp16` short of its GPU: the same operators on the CPU, and what is said where there is no GPU."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from typer.testing import CliRunner

from services.cli.main import app
from services.releases.schema import MEMBERS
from tests.small_release import build_small_release, coloured_crops, small_network
from triton_models.export.self_test import drawn_crops
from triton_models.forms.form import TORCH
from triton_models.layout.served_here import SHIPPED
from triton_models.repository.gpu_network.torch_network import Graph, Network
from triton_models.training.reports.released import open_release


def answers(file: Path, crops: np.ndarray, precision: torch.dtype = torch.float32) -> np.ndarray:
    """Logits of the network in `file`, run by torch on the CPU."""
    with torch.inference_mode():
        logits = Graph(file, "cpu", precision)(torch.from_numpy(crops))
    assert logits.dtype == torch.float32
    return logits.numpy()


@pytest.mark.parametrize("member", MEMBERS)
def test_the_shipped_networks_answer_what_onnx_runtime_answers(member: str) -> None:
    classifier = open_release(SHIPPED)
    release = classifier.release
    crops = drawn_crops(release.classes, release.crop_um, release.crop_px, 6)
    expected = classifier.logits_of(member, crops)
    np.testing.assert_allclose(answers(SHIPPED / member / "model.onnx", crops), expected, atol=2e-3)


@pytest.mark.parametrize("compressed", [False, True])
def test_in_fp16_only_rounding_differs(tmp_path: Path, compressed: bool) -> None:
    file, crops = tmp_path / "model.onnx", coloured_crops(9, seed=2)
    onnx.save(small_network(3, 18, compressed=compressed), file)
    expected = onnxruntime.InferenceSession(file).run(None, {"CROPS": crops})[0]
    np.testing.assert_allclose(answers(file, crops), expected, atol=1e-3)
    rounded = answers(file, crops, torch.float16)
    assert 0 < np.abs(rounded - expected).max() < 0.05 * np.abs(expected).max()


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    network = small_network(3, 18)
    network.graph.node[4].CopyFrom(helper.make_node("Softsign", ["a"], ["b"], name="odd"))
    onnx.save(network, tmp_path / "model.onnx")
    with pytest.raises(RuntimeError, match=r"does not know the operator Softsign \(odd\)"):
        Graph(tmp_path / "model.onnx", "cpu", torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_one_line(tmp_path: Path) -> None:
    build_small_release(tmp_path / "release")
    with pytest.raises(RuntimeError, match="torch-fp16 needs an NVIDIA GPU, and torch finds none here"):
        Network(tmp_path / "release" / MEMBERS[0] / "model.onnx", [8])
    verified = CliRunner().invoke(app, ["release", "verify", str(tmp_path / "release"), "--cells=8", "--form", TORCH])
    assert verified.exit_code == 1
    assert "torch-fp16 was not verified: torch-fp16 needs an NVIDIA GPU" in " ".join(verified.output.split())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_each_size_answers_its_own_crops() -> None:
    classifier = open_release(SHIPPED)
    release = classifier.release
    crops = drawn_crops(release.classes, release.crop_um, release.crop_px, 24)
    for member in MEMBERS:
        network = Network(SHIPPED / member / "model.onnx", [8, 16])
        expected = classifier.logits_of(member, crops)
        for start, stop, size in ((0, 5, 8), (5, 13, 8), (13, 24, 16)):
            network.crops[: stop - start] = crops[start:stop]
            found = network.run(size)[: stop - start]
            np.testing.assert_allclose(found, expected[start:stop], atol=0.05)
