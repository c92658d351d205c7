"""Python backend of one convolutional network, run by OpenVINO on the CPU. Served as efficientnetv2_s and resnetv2_50.

Runs in Triton's own environment and imports nothing of morphbatch. CROPS UINT8 [N, S, S, 3] → LOGITS FP32 [N, 18].

One blocking call a request would leave a core idle while the next request is fetched. So the crops of all requests of
an `execute()` are joined and cut into small sub-batches, and a queue of OpenVINO requests keeps every stream busy.
"""

import json
import os
from pathlib import Path

import numpy as np
import openvino
from openvino.passes import ConstantFolding, Manager
from tensors import array_of, response_of


def unfold(network):
    # Weights that are stored as int8 in an ONNX file become fp32 here. Left to OpenVINO 2026.4.1, on two streams they
    # yielded logits of 1e15 and more (seen with EfficientNetV2-S and ResNet50V2), and one layer ran in int8.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(network)


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"])
        self.sub_batch = int(parameters["sub_batch"])
        streams = int(parameters["streams"]) or len(os.sched_getaffinity(0))

        core = openvino.Core()
        side = int(parameters["crop_px"])
        network = core.read_model(folder / args["model_version"] / parameters["model_file"])
        if parameters["model_file"].endswith(".onnx"):
            unfold(network)
        network.reshape([self.sub_batch, side, side, 3])
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                # Both members share the cores: threads that are pinned would sit on the same core while one is idle.
                "ENABLE_CPU_PINNING": False,
                # Or bf16 is taken where the CPU has it: slower, and less exact. Layers of an int8 file stay int8.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self.classes = compiled.output(0).shape[1]
        self.queue = openvino.AsyncInferQueue(compiled, streams + 1)  # one waits, so that no stream does
        self.queue.set_callback(self._keep)

    def _keep(self, request, place):
        logits, start = place
        stop = min(start + self.sub_batch, len(logits))
        logits[start:stop] = request.get_output_tensor(0).data[: stop - start]

    def execute(self, requests):
        crops = [array_of(request, "CROPS") for request in requests]
        joined = np.concatenate(crops) if len(crops) > 1 else crops[0]
        logits = np.empty((len(joined), self.classes), np.float32)
        for start in range(0, len(joined), self.sub_batch):
            part = joined[start : start + self.sub_batch]
            if len(part) < self.sub_batch:
                part = np.concatenate([part, np.zeros((self.sub_batch - len(part), *part.shape[1:]), np.uint8)])
            self.queue.start_async({0: part}, (logits, start))
        self.queue.wait_all()

        responses = []
        start = 0
        for part in crops:
            responses.append(response_of("LOGITS", logits[start : start + len(part)]))
            start += len(part)
        return responses

    def finalize(self):
        self.queue.wait_all()
