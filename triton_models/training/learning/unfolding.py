"""Start a network from a release: its ONNX file back into timm's weights.

The exporter folds a batch normalisation into the convolution before it, and with it the statistics that training needs.
One pass over drawn cells finds them again: behind each convolution the normalisation is given the mean and variance
that it then sees, and a scale and shift that undo them, so that the network computes what the release computes.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from services.smears.field import draw_cell_crop
from services.smears.stains import Stain
from services.taxonomy import CLASSES
from triton_models.export.compression import unfolded
from triton_models.export.network import standardised

_PREFIX: Final = "backbone."
_CROPS: Final = 90


def unfold_into(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The weights of the ONNX file `path` under the names and shapes of `network`, whose own weights are changed too.

    Normalisations that were folded away are measured on drawn crops of the file's size; a tensor that `network` has in
    another shape, such as a classifier of other classes, is returned as it is. What the file lacks is not returned.
    """
    model = onnx.load(path)
    stored = {name: torch.from_numpy(array.copy()) for name, array in unfolded(model.graph).items()}
    weights = {name.removeprefix(_PREFIX): value for name, value in stored.items() if name.startswith(_PREFIX)}
    shifts = {
        node.input[1].removeprefix(_PREFIX).removesuffix(".weight"): stored[node.input[2]]
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3
    }
    weights |= {f"{layer}.bias": shift for layer, shift in shifts.items()}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            layer = node.input[1].removeprefix(_PREFIX).removesuffix(".weight")
            parts = ("weight", "bias", "running_mean", "running_var")
            weights |= {f"{layer}.{part}": stored[name] for part, name in zip(parts, node.input[1:], strict=True)}
    weights |= _classifier(network, model.graph, stored)
    own = network.state_dict()
    weights = {name: value for name, value in weights.items() if name in own}
    for name in own:  # a bias of zeros was left out of the file
        if name.endswith(".bias") and name not in weights and name.removesuffix("bias") + "weight" in weights:
            weights[name] = torch.zeros_like(own[name])
    network.load_state_dict({n: v for n, v in weights.items() if v.shape == own[n].shape}, strict=False)
    crop_px = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    _measure_normalisations(network, set(weights), shifts, _drawn(crop_px))
    measured = {name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    return {n: v for n, v in network.state_dict().items() if n.rpartition(".")[0] in measured} | weights


def _classifier(network: nn.Module, graph: onnx.GraphProto, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The classifier's weight: where it is a convolution, the exporter may have stored it as a matrix of its own."""
    layer: Any = network.get_classifier()
    (product,) = (node for node in graph.node if node.op_type == "Gemm")
    weight = stored.get(product.input[1])
    if weight is None:
        return {}
    (name,) = (name for name, value in network.named_parameters() if value is layer.weight)
    return {name: weight.reshape(*weight.shape, *[1] * (layer.weight.ndim - 2))}


def _measure_normalisations(network: nn.Module, stored: set[str], shifts: dict[str, Tensor], crops: Tensor) -> None:
    """Give each normalisation that is not `stored` its statistics. `shifts`: the biases it left, by convolution."""
    alone = {id(layer) for name, layer in network.named_modules() if f"{name}.running_mean" in stored}
    behind: dict[int, str] = {}
    hooks: list[Any] = []

    def convolved(name: str) -> Any:
        def hook(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            behind[id(output)] = name

        return hook

    def normalises(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm: Any = layer
        if id(norm) in alone:
            return
        shift = shifts.get(behind[id(inputs[0])], torch.zeros(()))  # a shift of zeros was left out of the file
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.bias.copy_(mean + shift)

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            hooks.append(layer.register_forward_hook(convolved(name)))
        elif isinstance(layer, nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(normalises))
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(crops)
    network.train(was_training)
    for hook in hooks:
        hook.remove()


def _drawn(crop_px: int) -> Tensor:
    """Crops `[N, 3, S, S]`, normalised as members take them: every class and stain."""
    stains = tuple(Stain)
    crops = [
        draw_cell_crop(
            np.random.default_rng([11, number]),
            number % len(CLASSES),
            stain=stains[number % len(stains)],
            size_px=crop_px,
        )
        for number in range(_CROPS)
    ]
    return standardised(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255)
