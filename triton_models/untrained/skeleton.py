"""Make the skeletons that untrained releases are grown from: `python -m triton_models.untrained.skeleton`.

A skeleton is the exported graph of a member without its large tensors, beside a list of how each is drawn. It is made
once, in the training environment, and committed; `untrained.py` fills it anywhere with NumPy alone.

The bound of every convolution is found by one pass over drawn cells that scales each layer's output to unit variance
(Mishkin & Matas 2016, "All you need is a good init"), so that 18 finite, modest logits come out that differ by crop.
"""

import gzip
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.releases.schema import MEMBERS, TIMM_NAMES
from services.taxonomy import CLASS_NAMES
from triton_models.export.network import ServedNetwork, export_network
from triton_models.untrained.grow import CROP_PX, SKELETONS, Draw, draw_uniform

SMALL = 64  # tensors with fewer values stay in the graph


def drawn_cells(count: int, px: int) -> NDArray[np.uint8]:
    """Crops `[count, px, px, 3]` of plain stained cells, drawn: a head, a tail, light noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:px, 0:px].astype(np.float32) - px / 2
    crops = []
    for _ in range(count):
        angle = rng.uniform(0, 2 * math.pi)
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        length, width = px * rng.uniform(0.08, 0.14), px * rng.uniform(0.05, 0.09)
        head = (along / length) ** 2 + (across / width) ** 2 < 1
        bend = width * np.sin(along / (px * rng.uniform(0.05, 0.2)))
        tail = (along > length) & (np.abs(across - bend) < px * 0.008)
        picture = np.empty((px, px, 3), np.float32)
        picture[:] = rng.uniform(190, 235) + rng.normal(0, 4, 3)
        picture[head] = rng.uniform(60, 150) + np.array([20, -20, 40])
        picture[tail] -= 60
        picture += rng.normal(0, 5, picture.shape)
        crops.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(crops)


def scaled_backbone(name: str, crops: NDArray[np.uint8]) -> tuple[nn.Module, dict[str, Draw]]:
    """A timm network whose weights are the draws that come with it: by parameter name, a seed and a bound."""
    backbone = timm.create_model(name, pretrained=False, num_classes=len(CLASS_NAMES)).eval()
    draws: dict[str, Draw] = {}

    def scale(layer_name: str) -> Any:
        def hook(layer: nn.Conv2d | nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if output[0].numel() == output.shape[1] and "se." in layer_name:
                target = 0.5  # gates stay near the middle of the sigmoid
            else:
                target = 0.4 if layer_name.endswith(("conv_pwl", "conv3")) else 1.0  # the branch of a residual sum
            factor = target / max(float(output.std()), 1e-6)
            parameter = f"{layer_name}.weight"
            draw = Draw(seed=draws[parameter].seed, bound=float(f"{draws[parameter].bound * factor:.5g}"))
            draws[parameter] = draw
            layer.weight.data = torch.from_numpy(draw_uniform(draw, layer.weight.shape))
            return output * factor  # the bias is 0

        return hook

    handles = []
    for seed, (layer_name, layer) in enumerate(backbone.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # mean 0, variance 1: folding it into the convolution before it changes no value
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        draws[f"{layer_name}.weight"] = Draw(seed=seed, bound=1.0)
        layer.weight.data = torch.from_numpy(draw_uniform(Draw(seed=seed, bound=1.0), layer.weight.shape))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if layer is not backbone.get_classifier():
            handles.append(layer.register_forward_hook(scale(layer_name)))
    network = ServedNetwork(backbone)
    with torch.inference_mode():
        network(torch.from_numpy(crops))
        for handle in handles:
            handle.remove()
        head = backbone.get_classifier()
        parameter = next(p for p in draws if backbone.get_submodule(p.removesuffix(".weight")) is head)
        logits = network(torch.from_numpy(crops))
        factor = 1.5 / float((logits - logits.mean(0)).std())  # crops differ by about this much
        draws[parameter] = Draw(seed=draws[parameter].seed, bound=float(f"{factor:.5g}"))
        head.weight.data = torch.from_numpy(draw_uniform(draws[parameter], head.weight.shape))
        head.bias.data = -network(torch.from_numpy(crops)).mean(0)  # or one class would win everywhere
    return backbone, draws


def make_skeleton(member: str, folder: Path) -> None:
    """Write `<member>.onnx.gz` and `<member>.weights.json` into `folder`."""
    backbone, draws = scaled_backbone(TIMM_NAMES[member], drawn_cells(16, CROP_PX))
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export_network(backbone, CROP_PX, path)
        model = onnx.load(path)
    records: dict[str, dict[str, float]] = {}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < SMALL:
            continue
        parameter = tensor.name.removeprefix("backbone.")
        if parameter in draws:
            drawn = draw_uniform(draws[parameter], values.shape)
            if not np.allclose(drawn, values, rtol=1e-6, atol=0):
                raise ValueError(f"{tensor.name}: the exporter changed the weights, the draw does not reproduce them")
            records[tensor.name] = draws[parameter].as_record()
        elif np.all(values == values.flat[0]):
            records[tensor.name] = {"constant": float(values.flat[0])}
        else:
            continue
        tensor.ClearField("raw_data")
    (folder / f"{member}.onnx.gz").write_bytes(gzip.compress(model.SerializeToString(deterministic=True), mtime=0))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(record)}" for name, record in records.items())
    (folder / f"{member}.weights.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    for member_name in MEMBERS:
        make_skeleton(member_name, SKELETONS)
