"""Weights of an ONNX network as int8 with a scale a channel: a quarter of the bytes, the arithmetic still fp32.

A runtime unfolds them when it loads the network (DequantizeLinear on constants), so that this is a way to store a
network, not a faster form of it; `openvino-int8` is that. The figures of a release are measured on what is stored.
"""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.errors import ConfigurationError

_LARGE: Final = 2048  # smaller tensors would save nothing and are the ones that hurt
_CODES: Final = 127


class ExportRefused(ConfigurationError, ValueError):
    """The exported graph is not what a release promises; another version of torch may export it differently."""

    reason = "export_refused"


def compress_weights(model: onnx.ModelProto) -> None:
    """Store every large weight of a convolution or matrix product of `model` as int8, in place.

    The output channels are the first axis: Conv has `[out, in, h, w]`, Gemm here `[out, in]` (transB).

    Raises:
        ExportRefused: a Gemm's weight has its outputs on the other axis.
    """
    graph = model.graph
    weights = _weights_of_layers(graph)
    kept, nodes = [], []
    for tensor in graph.initializer:
        if tensor.name not in weights or np.prod(tensor.dims) < _LARGE:
            kept.append(tensor)
            continue
        codes, scale = to_codes(numpy_helper.to_array(tensor))
        names = f"{tensor.name}.codes", f"{tensor.name}.scale"
        kept += [numpy_helper.from_array(codes, names[0]), numpy_helper.from_array(scale, names[1])]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], name=f"{tensor.name}.unfold", axis=0))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    layers = list(graph.node)
    del graph.node[:]
    graph.node.extend([layers[0], *nodes, *layers[1:]])  # the first node reads the crops


def to_codes(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes `[out, …]` and scales `[out]`, so that weight ≈ codes · scale of each output."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scale = np.where(largest > 0, largest / _CODES, 1.0).astype(np.float32)
    codes = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
    return codes, scale


def _weights_of_layers(graph: onnx.GraphProto) -> set[str]:
    names = set()
    for node in graph.node:
        if node.op_type == "Conv":
            names.add(node.input[1])
        elif node.op_type == "Gemm":
            if not any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
                raise ExportRefused(f"{node.name}: the outputs of {node.input[1]} are not its first axis")
            names.add(node.input[1])
    return names


def unfolded(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """Every floating tensor stored in `graph`, by name, compressed or not."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            codes, scale = stored.pop(node.input[0]), stored.pop(node.input[1])
            stored[node.output[0]] = codes * scale.reshape(-1, *[1] * (codes.ndim - 1))
    return {name: array for name, array in stored.items() if array.dtype == np.float32}


def stored_codes(path: Path) -> list[list[bytes]]:
    """The bytes of every weight that the ONNX file `path` stores as int8 codes, a row for each output."""
    graph = onnx.load(path).graph
    codes = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    return [[row.tobytes() for row in weight] for weight in codes]
