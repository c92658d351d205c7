"""Training starts from the networks of a release."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from triton_models.export.network import export_network, standardised
from triton_models.training.config import Network
from triton_models.training.learning.networks import WeightsUnusable, build_network

SIDE = 48


def lived_in(name: str, classes: int) -> nn.Module:
    """A network whose normalisations have seen something."""
    torch.manual_seed(2)
    network = build_network(name, classes, Network(dropout=0, drop_path=0))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data.normal_(0, 0.3)
            layer.weight.data.uniform_(0.7, 1.4)
    with torch.no_grad():
        for _ in range(20):
            network(standardised(torch.rand(16, 3, SIDE, SIDE)))
    return network.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "resnetv2_50"])
def test_a_network_started_from_a_release_says_what_the_release_says(name: str, tmp_path: Path) -> None:
    export_network(lived_in(name, 4), SIDE, tmp_path / "model.onnx", classes=4, compress=True)
    crops = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"CROPS": crops})

    started = build_network(name, 4, Network(weights=str(tmp_path / "model.onnx"))).eval()
    with torch.no_grad():
        found = started(standardised(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)).numpy()
    assert np.abs(found - wanted).max() < 2e-3 * max(np.abs(wanted).max(), 1)


def test_a_head_of_other_classes_starts_at_zero_on_the_features_of_the_release(tmp_path: Path) -> None:
    export_network(lived_in("test_efficientnet", 4), SIDE, tmp_path / "model.onnx", classes=4)
    how = Network(weights=str(tmp_path / "model.onnx"))
    started, same = build_network("test_efficientnet", 2, how), build_network("test_efficientnet", 4, how)
    assert started.get_classifier().weight.shape[0] == 2
    assert not started.get_classifier().weight.any()
    assert torch.equal(next(started.parameters()), next(same.parameters()))
    assert same.get_classifier().weight.all()


def test_weights_that_are_missing_or_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnusable, match=r"nowhere\.onnx is not a file"):
        build_network("test_resnet", 4, Network(weights=str(tmp_path / "nowhere.onnx")))
    export_network(lived_in("test_efficientnet", 4), SIDE, tmp_path / "model.onnx", classes=4)
    with pytest.raises(WeightsUnusable, match=r"model\.onnx is of another network"):
        build_network("test_resnet", 4, Network(weights=str(tmp_path / "model.onnx")))


def test_an_efficientnet_from_scratch_starts_with_branches_that_add_nothing() -> None:
    network = build_network("efficientnetv2_s", 4, Network())
    passed_on = []

    def compare(_block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        passed_on.append(torch.equal(inputs[0], output))

    for block in network.modules():
        if getattr(block, "has_skip", False):
            block.register_forward_hook(compare)
    network(torch.rand(4, 3, SIDE, SIDE))
    assert passed_on
    assert all(passed_on)


def test_neither_lamp_nor_ground_reaches_a_network() -> None:
    crops = torch.rand(2, 3, SIDE, SIDE)
    other = 0.6 * crops + torch.tensor([0.3, 0.1, 0.2])[:, None, None]
    assert torch.allclose(standardised(other), standardised(crops), atol=1e-3)
    assert torch.equal(standardised(torch.full((1, 3, SIDE, SIDE), 0.5)), torch.zeros(1, 3, SIDE, SIDE))
