"""From a timm network in PyTorch to the ONNX file of a release. Needs the `train` extra; the service never imports it.

The ONNX file is the contract of a member: in `CROPS` UINT8 `[N, S, S, 3]` (RGB), out `LOGITS` FP32 `[N, 18]`, the
normalisation inside. TensorRT takes UINT8 as network input only, and only into a `Cast`, so `Cast` is the first node.
"""

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from services.atomic import whole_file
from services.taxonomy import CLASS_NAMES
from triton_models.export.compression import ExportRefused, compress_weights

MAX_BATCH = 64
_LEAST_SPREAD = 1 / 255  # of one grey level: an empty crop is divided by no less


def standardised(crops: Tensor) -> Tensor:
    """Float crops `[N, 3, S, S]` in 0…1 as both members take them, in training and in the released graph.

    Each crop loses its mean colour and is divided by its own spread over all channels: what is left is how a cell
    differs from its ground, and not how strong the lamp, the stain or the camera was.
    """
    centred = crops - crops.mean((2, 3), keepdim=True)
    return centred / ((centred * centred).mean((1, 2, 3), keepdim=True) + _LEAST_SPREAD**2).sqrt()


class ServedNetwork(nn.Module):  # type: ignore[misc,unused-ignore] # torch is absent where mypy runs
    """A timm backbone behind its normalisation: UINT8 crops `[N, S, S, 3]` → logits `[N, 18]`.

    The pooling is written out, because the adaptive pooling of timm's heads is exported as a gather over a computed
    shape.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone

    def forward(self, crops: Tensor) -> Tensor:
        """Logits of `crops`."""
        pixels = crops.float().permute(0, 3, 1, 2) * (1 / 255)
        features = self.backbone.forward_features(standardised(pixels)).mean((2, 3))
        head = self.backbone.get_classifier()
        return nn.functional.linear(features, head.weight.flatten(1), head.bias)


def export_network(
    backbone: nn.Module, crop_px: int, path: Path, classes: int = len(CLASS_NAMES), compress: bool = False
) -> None:
    """Write `backbone`, a timm network with one output a class, as the ONNX file of a member for crops of `crop_px`.

    `compress` stores the weights as int8.

    Raises:
        ExportRefused: the exported graph is not what Triton and TensorRT are promised.
    """
    network = ServedNetwork(backbone).eval()
    program = torch.onnx.export(
        network,
        (torch.zeros(2, crop_px, crop_px, 3, dtype=torch.uint8),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N", min=1, max=MAX_BATCH)},),
        input_names=["CROPS"],
        output_names=["LOGITS"],
        verbose=False,
    )
    if program is None:
        raise ExportRefused("torch.onnx.export returned no program")
    model = program.model_proto
    strip_traces(model)
    if compress:
        compress_weights(model)
    check_contract(model, crop_px, classes)
    with whole_file(path) as draft:
        onnx.save(model, draft)


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about source files and modules: it names the folders of the machine it ran on."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for named in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del named.metadata_props[:]
        named.doc_string = ""


def check_contract(model: onnx.ModelProto, crop_px: int, classes: int = len(CLASS_NAMES)) -> None:
    """Refuse a graph whose input, output or first node is not the contract of a member.

    Raises:
        ExportRefused: names what differs.
    """
    signature = [
        (value.name, value.type.tensor_type.elem_type, [d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    wanted = [
        ("CROPS", onnx.TensorProto.UINT8, [0, crop_px, crop_px, 3]),
        ("LOGITS", onnx.TensorProto.FLOAT, [0, classes]),
    ]
    if signature != wanted:
        raise ExportRefused(f"inputs and outputs are {signature}, not {wanted}")
    readers = [node.op_type for node in model.graph.node if "CROPS" in node.input]
    if readers != ["Cast"] or model.graph.node[0].op_type != "Cast":
        raise ExportRefused(f"CROPS must be read by one Cast, the first node; it is read by {readers}")
