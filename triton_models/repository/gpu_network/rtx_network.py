"""One engine of TensorRT-RTX on one GPU: pinned memory, one stream, and CUDA graphs, which the runtime captures.

The runtime compiles the engine's kernels for this GPU when a batch size is first used. They are kept in a file; one of
another GPU, driver or version is left aside by the runtime, and written again.

Sources: "Working with RTX CUDA Graphs", "Working with Runtime Cache" and "Working with Dynamic Shapes" of NVIDIA's
documentation of TensorRT for RTX.
"""

import ctypes

import numpy as np
import tensorrt_rtx_bindings as trt
from cuda.bindings import runtime as cuda

_TO_DEVICE = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost


class Log(trt.ILogger):
    """Keeps what went wrong."""

    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)

    def said(self):
        return " ".join(self.errors)[-400:] or "it does not say why"


def value_of(answer):
    """What a function of CUDA's runtime gave, behind its error."""
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        raise RuntimeError(f"CUDA: {cuda.cudaGetErrorString(error)[1].decode()}")
    return values[0] if values else None


class Network:
    """`crops`: put up to the largest of `sizes` there; `run(size)` answers the logits of the first `size` of them."""

    def __init__(self, file, sizes, device=0, compiled=None):
        try:
            value_of(cuda.cudaSetDevice(device))
        except RuntimeError as error:
            raise RuntimeError(
                f"TensorRT-RTX needs an RTX GPU with its driver, and finds none here ({error})"
            ) from None
        self._log = Log()
        runtime = trt.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            raise RuntimeError(f"{file.name} does not run on this GPU: {self._log.said()}")
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        kept = compiled and compiled / "kernels"
        if kept and kept.exists():
            cache.deserialize(kept.read_bytes())
        config.set_runtime_cache(cache)
        self._engine = engine  # must outlive its context
        self._context = engine.create_execution_context(runtime_config=config)

        self._stream = value_of(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self.crops = pinned((sizes[-1], *engine.get_tensor_shape("CROPS")[1:]), np.uint8)
        self._logits = pinned((sizes[-1], engine.get_tensor_shape("LOGITS")[1]), np.float32)
        self._on_device = {}
        for name, array in (("CROPS", self.crops), ("LOGITS", self._logits)):
            self._on_device[name] = value_of(cuda.cudaMalloc(array.nbytes))
            self._context.set_tensor_address(name, int(self._on_device[name]))

        for size in sizes:  # compiles kernels and captures graphs before the first request
            self.run(size)
        if kept:
            compiled.mkdir(exist_ok=True)
            kept.write_bytes(cache.serialize())

    def run(self, size):
        crops, logits = self.crops[:size], self._logits[:size]
        self._context.set_input_shape("CROPS", crops.shape)
        self._copy(self._on_device["CROPS"], crops.ctypes.data, crops.nbytes, _TO_DEVICE)
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT-RTX: {self._log.said()}")
        self._copy(logits.ctypes.data, self._on_device["LOGITS"], logits.nbytes, _TO_HOST)
        value_of(cuda.cudaStreamSynchronize(self._stream))
        return logits

    def _copy(self, target, source, size, direction):
        value_of(cuda.cudaMemcpyAsync(target, source, size, direction, self._stream))


def pinned(shape, kind):
    """An array in page-locked memory, which the GPU reads and writes without help."""
    bytes_ = int(np.prod(shape)) * np.dtype(kind).itemsize
    address = value_of(cuda.cudaMallocHost(bytes_))
    return np.frombuffer((ctypes.c_char * bytes_).from_address(int(address)), kind).reshape(shape)
