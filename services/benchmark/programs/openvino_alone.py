"""Both networks driven by OpenVINO alone: `python openvino_alone.py CROPS.npy MODEL.onnx MODEL.onnx`; JSON to stdout.

A program of its own, run in Triton's environment; it imports nothing of morphbatch. The settings are the quickest that
were found for two networks on this kind of machine: small sub-batches in a queue that keeps every stream busy, one
network after the other.
"""

import json
import os
import sys
import time

import numpy as np
import openvino
from openvino.passes import ConstantFolding, Manager

SUB_BATCH = 4


def compiled(core, path, side, streams):
    network = core.read_model(path)
    if str(path).endswith(".onnx"):  # as the server does, or weights stored as int8 are computed wrongly
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(network)
    network.reshape([SUB_BATCH, side, side, 3])
    settings = {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(network, "CPU", settings)


def run(queue, crops, logits):
    for start in range(0, len(crops), SUB_BATCH):
        part = crops[start : start + SUB_BATCH]
        if len(part) < SUB_BATCH:
            part = np.concatenate([part, np.zeros((SUB_BATCH - len(part), *part.shape[1:]), np.uint8)])
        queue.start_async({0: part}, (logits, start))
    queue.wait_all()


def keep(request, place):
    logits, start = place
    stop = min(start + SUB_BATCH, len(logits))
    logits[start:stop] = request.get_output_tensor(0).data[: stop - start]


def main(crops_path, *model_paths):
    crops = np.load(crops_path)
    core = openvino.Core()
    streams = len(os.sched_getaffinity(0))
    queues = []
    for path in model_paths:
        queue = openvino.AsyncInferQueue(compiled(core, path, crops.shape[1], streams), streams + 1)
        queue.set_callback(keep)
        queues.append(queue)
    results = [np.zeros((len(crops), 18), np.float32) for _ in queues]
    for queue, logits in zip(queues, results, strict=True):
        run(queue, crops[: 8 * SUB_BATCH], logits)
    seconds = []
    cpu_before = time.process_time()
    for queue, logits in zip(queues, results, strict=True):
        started = time.perf_counter()
        run(queue, crops, logits)
        seconds.append(time.perf_counter() - started)
    answer = {
        "crops": len(crops),
        "seconds": sum(seconds),
        "seconds_each": seconds,
        "cpu_s": round(time.process_time() - cpu_before, 2),
        "streams": streams,
        "sub_batch": SUB_BATCH,
        "finite": bool(np.isfinite(results).all()),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
