"""One network of a release in torch on one GPU: FP16 from its first convolution on, channels last, a CUDA graph a size.

It runs the operators of the ONNX file one by one, so that what is served is what was released: its batch normalisations
are folded into the convolutions there, each crop's mean and spread are computed in FP32. What Python does between the
operators costs nothing once they are captured in a CUDA graph.
"""

from collections import Counter
from functools import partial

import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

_WARM_UP = 3  # runs before a capture, in which cuDNN chooses its algorithms


def convolve(x, weight, bias=None, *, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, **_):
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x = functional.pad(x, (left, right, top, bottom))
        top = left = 0
    return functional.conv2d(x.to(weight.dtype), weight, bias, strides, (top, left), dilations, group)


def product(x, weight, bias=None, *, transB=0, **_):  # noqa: N803 - ONNX names it so
    return functional.linear(x.to(weight.dtype), weight if transB else weight.T, bias)


def largest(x, *, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), **_):
    return functional.max_pool2d(x, kernel_shape, strides, pads[:2])


def mean(x, axes, *, keepdims=1, **_):
    return x.mean(axes.tolist(), keepdim=bool(keepdims))


def transpose(x, *, perm):
    return x.permute(perm)


OPERATORS = {
    "Add": torch.add,
    "BatchNormalization": lambda x, factor, shift: torch.addcmul(shift, x, factor),
    "Cast": lambda x, **_: x.float(),
    "Conv": convolve,
    "DequantizeLinear": lambda codes, scale, **_: codes * scale.reshape(-1, *[1] * (codes.ndim - 1)),
    "Div": torch.div,
    "Flatten": lambda x, axis=1: x.flatten(axis),
    "Gemm": product,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "MaxPool": largest,
    "Mul": torch.mul,
    "ReduceMean": mean,
    "Relu": torch.relu,
    "Reshape": lambda x, shape, **_: x.reshape(shape.tolist()),
    "Sigmoid": torch.sigmoid,
    "Silu": functional.silu,  # Sigmoid and Mul, as one
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Transpose": transpose,
}
WITH_WEIGHTS = ("Conv", "Gemm", "BatchNormalization")


class Graph:
    """The network of an ONNX file: crops `[N, S, S, 3]` UINT8 → logits `[N, classes]` FP32."""

    def __init__(self, file, device, precision):
        graph = onnx.load(file).graph
        self.crop_px = graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self.classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self._steps = []
        for node in joined(graph.node):
            self._add(node)
        read = {name for kind, _, names, _ in self._steps if kind in WITH_WEIGHTS for name in names[1:]}
        for name in read:  # scalars and axes stay on the CPU, where the operators of a GPU take them from
            weight = self._constants[name].to(device, precision)
            self._constants[name] = weight.to(memory_format=torch.channels_last) if weight.ndim == 4 else weight

    def _add(self, node):
        """One step more, or, where all that the node reads is constant, one constant more."""
        if node.op_type not in OPERATORS:
            raise RuntimeError(f"torch-fp16 does not know the operator {node.op_type} ({node.name})")
        names = list(node.input)
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "BatchNormalization":
            names = [names[0], *self._factor_and_shift(node, attributes.pop("epsilon"))]
            attributes = {}
        run = partial(OPERATORS[node.op_type], **attributes)
        if all(name in self._constants for name in names):
            self._constants[node.output[0]] = run(*(self._constants[name] for name in names))
        else:
            self._steps.append((node.op_type, run, names, node.output[0]))

    def _factor_and_shift(self, node, epsilon):
        """Names of what a normalisation multiplies by and adds: it is not behind a convolution that could take it."""
        scale, bias, middle, variance = (self._constants[name].double() for name in node.input[1:])
        factor = scale / (variance + epsilon).sqrt()
        names = f"{node.output[0]}.factor", f"{node.output[0]}.shift"
        for name, value in zip(names, (factor, bias - middle * factor), strict=True):
            self._constants[name] = value.float().reshape(1, -1, 1, 1)
        return names

    def __call__(self, crops):
        values = {**self._constants, self._input: crops}
        for _, run, names, output in self._steps:
            values[output] = run(*(values[name] for name in names))
        return values[self._output].float()


def joined(nodes):
    """The nodes, with each x · sigmoid(x) as one: it is read and written once."""
    sigmoids = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Sigmoid"}
    readers = Counter(name for node in nodes for name in node.input)
    products = [node for node in nodes if node.op_type == "Mul"]
    of = {name: node for node in products for name in node.input if sigmoids.get(name) in node.input}
    of = {name: node for name, node in of.items() if readers[name] == 1}
    silus = {node.output[0]: sigmoids[name] for name, node in of.items()}
    for node in nodes:
        if node.output[0] in silus:
            yield onnx.helper.make_node("Silu", [silus[node.output[0]]], list(node.output))
        elif node.output[0] not in of:
            yield node


class Network:
    """`crops`: put up to the largest of `sizes` there; `run(size)` answers the logits of the first `size` of them."""

    def __init__(self, file, sizes, device=0, compiled=None):  # noqa: ARG002 - nothing is kept between starts
        if not torch.cuda.is_available():
            raise RuntimeError("torch-fp16 needs an NVIDIA GPU, and torch finds none here")
        torch.backends.cudnn.benchmark = True
        torch.cuda.set_device(device)
        self._graph = Graph(file, "cuda", torch.float16)
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        side = self._graph.crop_px
        self._pinned = torch.zeros((sizes[-1], side, side, 3), dtype=torch.uint8, pin_memory=True)
        self._given = torch.zeros_like(self._pinned, device="cuda")
        self._answers = torch.zeros((sizes[-1], self._graph.classes), pin_memory=True)
        self.crops, self._logits = self._pinned.numpy(), self._answers.numpy()
        # The largest first: the smaller ones then fit into its memory.
        self._captured = {size: self._capture(size) for size in reversed(sizes)}

    @torch.inference_mode()
    def _capture(self, size):
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                self._graph(self._given[:size])
        self._stream.synchronize()
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, pool=self._pool, stream=self._stream):
            logits = self._graph(self._given[:size])
        return captured, logits

    @torch.inference_mode()
    def run(self, size):
        captured, logits = self._captured[size]
        with torch.cuda.stream(self._stream):
            self._given[:size].copy_(self._pinned[:size], non_blocking=True)
            captured.replay()
            self._answers[:size].copy_(logits, non_blocking=True)
        self._stream.synchronize()
        return self._logits[:size]
