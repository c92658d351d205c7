"""From a member's ONNX file to the FP16 network that TensorRT and TensorRT-RTX are given. Both take precision from it.

What stands before the first convolution stays FP32: each crop's mean and spread, whose squares would overflow and whose
rounding costs cells their class. Everything from there on is FP16, weights and activations; the logits are FP32 again.

Converters were tried and left. `onnxruntime.transformers.float16` and `onnxconverter_common` round between nodes that
are to stay FP32: logits of a release were off by 0.03 and 0.02 instead of 0.005. AutoCast of NVIDIA's Model
Optimizer (0.47) cannot be imported without torch.
"""

from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper, numpy_helper

from triton_models.export.compression import unfolded

_WITH_WEIGHTS: Final = ("Conv", "Gemm")
_SUFFIX: Final = ".fp16"


def write_half(source: Path, target: Path) -> None:
    """Write the ONNX file `source` of a member as the FP16 network `target`; weights stored as int8 are unfolded."""
    model = onnx.load(source)
    unfold_weights(model)
    halve(model)
    onnx.checker.check_model(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)


def unfold_weights(model: onnx.ModelProto) -> None:
    """Put the FP32 that they stand for in the place of weights that `model` stores as int8."""
    graph = model.graph
    stored = unfolded(graph)
    folds = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] in stored]
    for node in folds:
        graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(stored[node.output[0]], node.output[0]))
    _drop_unread(graph)


def halve(model: onnx.ModelProto) -> None:
    """Compute in FP16 from the first convolution of `model` on. CROPS stay UINT8, LOGITS FP32."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    halved: set[str] = set()  # tensors that a node computes in FP16
    named: dict[str, str] = {}  # FP32 tensors that an FP16 node reads, with the name of their FP16 copy
    nodes = []
    for node in graph.node:
        of_constants = all(name in constants for name in node.input)  # such as a head's weight, reshaped
        if node.op_type in _WITH_WEIGHTS or halved & set(node.input) or of_constants:
            for place, name in enumerate(node.input):
                if not name or name in halved or (name in constants and not _is_float(constants[name])):
                    continue
                if name not in named:
                    named[name] = name + _SUFFIX
                    if name in constants:
                        rounded = numpy_helper.to_array(constants[name]).astype("float16")
                        graph.initializer.append(numpy_helper.from_array(rounded, named[name]))
                    else:
                        nodes.append(_cast(name, named[name], TensorProto.FLOAT16))
                node.input[place] = named[name]
            halved.update(node.output)
        nodes.append(node)
    for output in graph.output:
        (last,) = (node for node in nodes if output.name in node.output)
        last.output[list(last.output).index(output.name)] = output.name + _SUFFIX
        nodes.append(_cast(output.name + _SUFFIX, output.name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)


def _is_float(tensor: TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{source}.to.{target}", to=to)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
