"""A network in OpenVINO on this CPU, set up as the embedded backend sets it up. Needs the `train` extra."""

import os
from collections import Counter, deque
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.passes import ConstantFolding, Manager

from triton_models.layout.model_configs import EmbeddedOptions

SUB_BATCH: Final = EmbeddedOptions().sub_batch
_LAYERS: Final = ("Convolution", "FullyConnected", "MatMul")
_INT8: Final = ("i8", "u8")


def read_network(path: Path) -> Any:
    """The network in the ONNX or IR file `path`. Constants of ONNX are folded: stored weights, transposed heads.

    NNCF 3.4.0 fails over a reshaped constant; OpenVINO 2026.4.1, left to unfold weights itself, computes nonsense on
    two streams.
    """
    network = openvino.Core().read_model(path)
    if path.suffix != ".onnx":  # int8 weights of an IR file are meant to stay so
        return network
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(network)
    return network


class OpenVinoNetwork:
    """Logits of crops, by `streams` one-threaded streams (0: one a core) fed in sub-batches."""

    def __init__(self, path: Path, crop_px: int, streams: int = 0) -> None:
        network = read_network(path)
        network.reshape([SUB_BATCH, crop_px, crop_px, 3])
        threads = streams or len(os.sched_getaffinity(0))
        self._compiled = openvino.Core().compile_model(
            network,
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        # No AsyncInferQueue: one that is dropped while its last callback still ends may wait for ever (2026.4.1).
        self._requests = [self._compiled.create_infer_request() for _ in range(threads + 1)]  # one waits its turn

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits `[N, classes]` of `crops` `[N, S, S, 3]`."""
        logits = np.empty((len(crops), self._compiled.output(0).shape[1]), np.float32)
        under_way: deque[tuple[Any, int]] = deque()
        for number, start in enumerate(range(0, len(crops), SUB_BATCH)):
            if len(under_way) == len(self._requests):
                _take(*under_way.popleft(), logits)
            part = crops[start : start + SUB_BATCH]
            if len(part) < SUB_BATCH:
                part = np.concatenate([part, np.zeros((SUB_BATCH - len(part), *part.shape[1:]), np.uint8)])
            request = self._requests[number % len(self._requests)]
            request.start_async({0: part})
            under_way.append((request, start))
        while under_way:
            _take(*under_way.popleft(), logits)
        return logits

    def layers(self) -> dict[str, int]:
        """How many convolutions and matrix products this CPU runs in int8, and how many in floating point."""
        counts: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            about = node.get_rt_info()
            if str(about["layerType"].value) in _LAYERS:
                counts["int8" if str(about["runtimePrecision"].value) in _INT8 else "float"] += 1
        return {"int8": counts["int8"], "float": counts["float"]}


def _take(request: Any, start: int, logits: NDArray[np.float32]) -> None:
    """Wait for a request and put its rows where they belong; what the last one was filled up with is left out."""
    request.wait()
    rows = logits[start : start + SUB_BATCH]
    rows[:] = request.get_output_tensor(0).data[: len(rows)]
