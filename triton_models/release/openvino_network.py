"""A network in OpenVINO on this CPU, set up as the embedded backend sets it up. Needs the `train` extra."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.passes import ConstantFolding, Manager

SUB_BATCH: Final = 4  # as model_configs.EmbeddedOptions
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
        self._queue = openvino.AsyncInferQueue(self._compiled, threads + 1)
        self._queue.set_callback(self._keep)

    @staticmethod
    def _keep(request: Any, place: tuple[NDArray[np.float32], int]) -> None:
        logits, start = place
        stop = min(start + SUB_BATCH, len(logits))
        logits[start:stop] = request.get_output_tensor(0).data[: stop - start]

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits `[N, classes]` of `crops` `[N, S, S, 3]`."""
        logits = np.empty((len(crops), self._compiled.output(0).shape[1]), np.float32)
        for start in range(0, len(crops), SUB_BATCH):
            part = crops[start : start + SUB_BATCH]
            if len(part) < SUB_BATCH:
                part = np.concatenate([part, np.zeros((SUB_BATCH - len(part), *part.shape[1:]), np.uint8)])
            self._queue.start_async({0: part}, (logits, start))
        self._queue.wait_all()
        return logits

    def layers(self) -> dict[str, int]:
        """How many convolutions and matrix products this CPU runs in int8, and how many in floating point."""
        counts: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            about = node.get_rt_info()
            if str(about["layerType"].value) in _LAYERS:
                counts["int8" if str(about["runtimePrecision"].value) in _INT8 else "float"] += 1
        return {"int8": counts["int8"], "float": counts["float"]}
