"""`gpu_network/model.py` with `rtx_network.py`, on a CUDA that is played: `python played_cuda.py FOLDER`.

Runs in the environment with TensorRT-RTX. Only what needs a GPU is played, and by its own names: a function or a method
that this version lacks is found out. The memory of the device is the host's; the engine answers each crop's sum.
"""

import ctypes
import json
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import NonCallableMagicMock, patch

import numpy as np
import tensorrt_rtx_bindings as trt
from cuda.bindings import runtime as cuda

FOLDER, SIDE, CLASSES, MOST = Path(sys.argv[1]), 4, 18, 48
PROGRAMS = Path("triton_models/repository")
DONE = cuda.cudaError_t.cudaSuccess
memory, batches, sent = [], [], []


def allocate(size):
    memory.append(ctypes.create_string_buffer(size))
    return DONE, ctypes.addressof(memory[-1])


def copy(target, source, size, direction, stream):
    assert int(stream) == 7
    ctypes.memmove(target, source, size)
    return (DONE,)


class Context:
    def __init__(self):
        self.at = {}

    def set_tensor_address(self, name, address):
        self.at[name] = address

    def set_input_shape(self, name, shape):
        self.shape = shape

    def execute_async_v3(self, stream):
        assert stream == 7
        batches.append(self.shape[0])
        pixels = np.prod(self.shape)
        crops = np.frombuffer((ctypes.c_uint8 * int(pixels)).from_address(self.at["CROPS"]), np.uint8)
        logits = np.frombuffer((ctypes.c_float * (self.shape[0] * CLASSES)).from_address(self.at["LOGITS"]), np.float32)
        logits.reshape(-1, CLASSES)[:] = crops.reshape(self.shape[0], -1).sum(1)[:, None]
        return True


def played(kind, **answers):
    return NonCallableMagicMock(spec_set=kind, **answers)


def response_of(name, logits):
    sent.append(logits.copy())
    return name


cache = played(trt.IRuntimeCache, **{"serialize.return_value": b"kernels"})
config = played(trt.IRuntimeConfig, **{"create_runtime_cache.return_value": cache})
context = Context()
methods = ("set_tensor_address", "set_input_shape", "execute_async_v3")
context = played(trt.IExecutionContext, **{f"{name}.side_effect": getattr(context, name) for name in methods})
shapes = {"CROPS": (-1, SIDE, SIDE, 3), "LOGITS": (-1, CLASSES)}
engine = played(
    trt.ICudaEngine,
    **{
        "create_runtime_config.return_value": config,
        "create_execution_context.return_value": context,
        "get_tensor_shape.side_effect": shapes.get,
    },
)
runtime = played(trt.Runtime, **{"deserialize_cuda_engine.return_value": engine})

tensors = ModuleType("tensors")
tensors.array_of = lambda request, name: request
tensors.response_of = response_of
sys.modules["tensors"] = tensors
sys.path[:0] = [str(PROGRAMS / "gpu_network")]
import rtx_network  # noqa: E402

sys.modules["network"] = rtx_network
import model  # noqa: E402

(FOLDER / "1").mkdir()
(FOLDER / "1" / "model.engine").write_bytes(b"engine")
server = model.TritonPythonModel()
crops = np.random.default_rng(5).integers(0, 256, (65, SIDE, SIDE, 3), np.uint8)
with (
    patch.object(cuda, "cudaSetDevice", lambda device: (DONE,)),
    patch.object(cuda, "cudaStreamCreateWithFlags", lambda flags: (DONE, cuda.cudaStream_t(7))),
    patch.object(cuda, "cudaStreamSynchronize", lambda stream: (DONE,)),
    patch.object(cuda, "cudaMalloc", allocate),
    patch.object(cuda, "cudaMallocHost", allocate),
    patch.object(cuda, "cudaMemcpyAsync", copy),
    patch.object(trt, "Runtime", lambda log: runtime),
):
    server.initialize(
        {
            "model_config": json.dumps(
                {"max_batch_size": MOST, "parameters": {"model_file": {"string_value": "model.engine"}}}
            ),
            "model_repository": str(FOLDER),
            "model_version": "1",
            "model_instance_device_id": "0",
        }
    )
    for requests in ([(0, 5)], [(5, 13), (13, 14)], [(14, 30), (30, 62)], [(62, 65)]):
        answers = server.execute([crops[start:stop] for start, stop in requests])
        assert answers == ["LOGITS"] * len(requests)
np.savez(FOLDER / "found.npz", crops=crops, logits=np.concatenate(sent), batches=batches)
