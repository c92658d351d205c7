"""The members: timm networks, with drawn weights or those of a file or hub id."""

from pathlib import Path
from typing import Any

import timm
import torch
from google.protobuf.message import DecodeError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import load_state_dict_from_hf
from torch import Tensor, nn

from services.errors import ConfigurationError
from services.releases.schema import TIMM_NAMES
from triton_models.training.config import Network
from triton_models.training.learning.checkpoint import UNREADABLE
from triton_models.training.learning.unfolding import unfold_into


class WeightsUnusable(ConfigurationError):
    """The weights to start from are missing or of another network."""

    reason = "weights_unusable"


def build_network(member: str, classes: int, config: Network) -> nn.Module:
    """The network of `member` (or any timm name) with one output per class.

    Raises:
        WeightsUnusable: `config.weights` is not there, or fits another network.
    """
    network: nn.Module = timm.create_model(
        TIMM_NAMES.get(member, member),
        pretrained=False,
        num_classes=classes,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
    )
    start_as_identity(network)
    if config.weights is not None:
        load_weights(network, config.weights)
    return network


def start_as_identity(network: nn.Module) -> None:
    """Let each residual block of an EfficientNet pass its input on at first, as timm's ResNets do (Goyal et al. 2017).

    Without it EfficientNetV2-S from scratch stays above chance loss for thousands of cells.
    """
    for block in network.modules():
        if getattr(block, "has_skip", False):
            *_, last = (layer for layer in block.children() if isinstance(layer, nn.BatchNorm2d))
            nn.init.zeros_(last.weight)


def load_weights(network: nn.Module, source: str) -> None:
    """Start `network` from the weights `source`; a classifier of other classes starts at zero.

    A drawn one would answer large features with large, wrong logits, and so spoil what was learnt (Kolesnikov et al.
    2020 start at zero too).

    Raises:
        WeightsUnusable: the file is missing or holds another network's weights.
    """
    weights = _read_weights(network, source)
    own = network.state_dict()
    classifier: Any = network.get_classifier()
    inside = {id(value) for value in classifier.parameters()}
    head = [name for name, value in network.named_parameters() if id(value) in inside]
    for name in head:
        if name not in weights or weights[name].shape != own[name].shape:
            weights[name] = torch.zeros_like(own[name])
    missing = [name for name in own if name not in weights]
    odd = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    if missing or odd:
        raise WeightsUnusable(f"{source} is of another network: {len(missing)} tensors missing, {len(odd)} do not fit")
    network.load_state_dict(weights)


def _read_weights(network: nn.Module, source: str) -> dict[str, Tensor]:
    if source.startswith("hub:"):
        fetched: dict[str, Tensor] = load_state_dict_from_hf(source.removeprefix("hub:"))
        return fetched
    path = Path(source)
    if not path.is_file():
        raise WeightsUnusable(f"{path} is not a file; weights are a file, or hub:<timm model id>")
    try:
        content = _content(network, path)
    except (DecodeError, SafetensorError, *UNREADABLE) as error:
        raise WeightsUnusable(f"{path} cannot be read as weights ({type(error).__name__})") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsUnusable(f"{path} holds no weights")
    return content


def _content(network: nn.Module, path: Path) -> Any:
    if path.suffix == ".onnx":
        return unfold_into(network, path)
    if path.suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("ema", "network", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            return content[name]
    return content
