"""Releases of two small networks with drawn weights: the contract of the real ones, made and run in no time."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from services.releases.schema import MEMBERS, Fusion, Member, Release, ReleaseKind, digest
from services.releases.self_test import SELF_TEST, SelfTest
from services.taxonomy import CLASS_NAMES
from triton_models.export.compression import compress_weights

CROP_PX = 32


def small_network(seed: int, classes: int, *, compressed: bool = False) -> onnx.ModelProto:
    """CROPS UINT8 [N, 32, 32, 3] → Cast → two convolutions → mean → LOGITS [N, classes]."""
    rng, own = np.random.default_rng(1), np.random.default_rng(seed)

    def drawn(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        bound = scale / np.sqrt(np.prod(shape[1:]))
        weights = rng.normal(0, bound, shape) + own.normal(0, bound / 10, shape)  # networks mostly agree
        return numpy_helper.from_array(weights.astype(np.float32), name)

    nodes = [
        helper.make_node("Cast", ["CROPS"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "first"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "bias"], ["LOGITS"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("CROPS", TensorProto.UINT8, ["N", CROP_PX, CROP_PX, 3])],
        [helper.make_tensor_value_info("LOGITS", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(np.float32(1 / 127.5), "scale"),
            drawn("first", 64, 3, 5, 5, scale=2.0),
            drawn("second", 64, 64, 3, 3, scale=2.0),
            drawn("head", classes, 64, scale=20.0),
            numpy_helper.from_array(np.zeros(classes, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    logits = ReferenceEvaluator(model).run(None, {"CROPS": coloured_crops(48, seed=9)})[0]
    graph_bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    graph_bias.CopyFrom(numpy_helper.from_array(-logits.mean(0), "bias"))  # or one class would win everywhere
    if compressed:
        compress_weights(model)
    onnx.checker.check_model(model)
    return model


def coloured_crops(rows: int, seed: int) -> NDArray[np.uint8]:
    """Crops `[rows, 32, 32, 3]`, each of a colour of its own, with noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (rows, 1, 1, 3)) + rng.normal(0, 25, (rows, CROP_PX, CROP_PX, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


def build_small_release(
    folder: Path, *, classes: tuple[str, ...] = CLASS_NAMES, compressed: bool = False, seed: int = 1
) -> Release:
    """Write a release of two small networks into the new folder `folder`."""
    files = {}
    crops = coloured_crops(12, seed=11)
    logits = {}
    for number, member in enumerate(MEMBERS):
        name = f"{member}/model.onnx"
        (folder / member).mkdir(parents=True)
        network = small_network(seed * 10 + number, len(classes), compressed=compressed)
        onnx.save(network, folder / name)
        files[name] = digest(folder / name)
        logits[member] = ReferenceEvaluator(network).run(None, {"CROPS": crops})[0]
    SelfTest(crops, logits).write(folder / SELF_TEST)
    files[SELF_TEST] = digest(folder / SELF_TEST)
    content = hashlib.sha256("".join(file.sha256 for file in files.values()).encode()).hexdigest()
    release = Release(
        id=f"small-{content[:12]}",
        kind=ReleaseKind.UNTRAINED,
        git_commit=None,
        created=datetime(2026, 11, 23, tzinfo=UTC),
        data_fingerprint=None,
        classes=classes,
        crop_px=CROP_PX,
        crop_um=16.0,
        members={member: Member(onnx=f"{member}/model.onnx") for member in MEMBERS},
        fusion=Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0)),
        metrics={},
        files=files,
    )
    release.write(folder)
    return release
