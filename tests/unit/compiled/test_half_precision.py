"""The FP16 network that TensorRT and TensorRT-RTX are given: what is FP16 in it, what is not, and what it answers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_shapes

from services.releases.schema import MEMBERS
from tests.small_release import coloured_crops, small_network
from triton_models.compile.half_precision import unfold_weights, write_half
from triton_models.layout.served_here import SHIPPED


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every tensor that is not a constant."""
    graph = infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


@pytest.mark.parametrize("member", MEMBERS)
def test_the_mean_and_spread_of_a_crop_stay_fp32_and_all_that_follows_is_fp16(member: str, tmp_path: Path) -> None:
    write_half(SHIPPED / member / "model.onnx", tmp_path / "fp16.onnx")
    model = onnx.load(tmp_path / "fp16.onnx")
    types = types_of(model)
    assert (types["CROPS"], types["LOGITS"]) == (TensorProto.UINT8, TensorProto.FLOAT)
    nodes = list(model.graph.node)
    first = next(place for place, node in enumerate(nodes) if node.op_type == "Conv")
    *before, border = nodes[:first]
    assert [node.op_type for node in before] == [
        "Cast", "Transpose", "Mul", "ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div",
    ]  # fmt: skip
    assert {types[name] for node in before for name in node.output} == {TensorProto.FLOAT}
    assert border.op_type == nodes[-1].op_type == "Cast"
    computed = nodes[first:-1]
    assert {types.get(name, TensorProto.FLOAT16) for node in computed for name in node.output} == {TensorProto.FLOAT16}
    assert "Cast" not in {node.op_type for node in computed}  # nothing goes back and forth
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    read = {constants[name] for node in computed for name in node.input if name in constants}
    assert read <= {TensorProto.FLOAT16, TensorProto.INT64}


@pytest.mark.parametrize("compressed", [False, True])
def test_it_answers_what_the_release_answers_but_for_rounding(compressed: bool, tmp_path: Path) -> None:
    network = small_network(3, 18, compressed=compressed)
    onnx.save(network, tmp_path / "model.onnx")
    write_half(tmp_path / "model.onnx", tmp_path / "work" / "fp16.onnx")
    crops = {"CROPS": coloured_crops(6, seed=4)}
    (before,) = ReferenceEvaluator(network).run(None, crops)
    (after,) = ReferenceEvaluator(onnx.load(tmp_path / "work" / "fp16.onnx")).run(None, crops)
    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_stored_weights_are_unfolded() -> None:
    stored = small_network(3, 18, compressed=True)
    model = onnx.ModelProto.FromString(stored.SerializeToString())
    unfold_weights(model)
    onnx.checker.check_model(model)
    assert "DequantizeLinear" not in {node.op_type for node in model.graph.node}
    assert model.graph.node[0].op_type == "Cast"
    assert all(numpy_helper.to_array(tensor).dtype != np.int8 for tensor in model.graph.initializer)
    crops = {"CROPS": coloured_crops(3, seed=4)}
    (before,), (after,) = (ReferenceEvaluator(network).run(None, crops) for network in (stored, model))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-4)
