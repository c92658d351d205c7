"""Weights stored as int8 are the same network in a quarter of the bytes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from triton_models.export.compression import compress_weights, to_codes, unfolded


def network(transposed: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    weights = {
        "conv.weight": rng.normal(size=(32, 3, 5, 5)),
        "conv.bias": rng.normal(size=32),
        "head.weight": rng.normal(size=(64, 32) if transposed else (32, 64)),
        "head.bias": rng.normal(size=64),
    }
    nodes = [
        helper.make_node("Cast", ["CROPS"], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "conv.weight", "conv.bias"], ["features"]),
        helper.make_node("ReduceMean", ["features", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "head.weight", "head.bias"], ["LOGITS"], transB=transposed),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("CROPS", onnx.TensorProto.UINT8, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("LOGITS", onnx.TensorProto.FLOAT, ["N", 64])],
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def test_a_compressed_network_says_the_same() -> None:
    crops = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    plain, stored = network(), network()
    compress_weights(stored)
    onnx.checker.check_model(stored)
    (wanted,), (found,) = (ReferenceEvaluator(model).run(None, {"CROPS": crops}) for model in (plain, stored))
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    assert stored.graph.node[0].op_type == "Cast"
    assert stored.ByteSize() < 0.35 * plain.ByteSize()


def test_every_output_channel_has_a_scale_of_its_own() -> None:
    weight = np.array([[1e-4, -2e-4], [100.0, 50.0], [0.0, 0.0]], np.float32)
    codes, scale = to_codes(weight)
    assert codes.tolist() == [[64, -127], [127, 64], [0, 0]]
    assert np.all(np.abs(codes * scale[:, None] - weight) <= 0.501 * scale[:, None])


def test_what_is_stored_can_be_read_back() -> None:
    plain, stored = network(), network()
    compress_weights(stored)
    before, after = unfolded(plain.graph), unfolded(stored.graph)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert np.abs(after[name] - value).max() <= np.abs(value).max() / 127


def test_a_product_with_its_outputs_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head\.weight"):
        compress_weights(network(transposed=0))
