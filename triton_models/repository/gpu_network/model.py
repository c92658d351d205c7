"""Python backend of one convolutional network on a GPU. Served as efficientnetv2_s and resnetv2_50.

Runs in Triton's environment and imports nothing of morphbatch. CROPS UINT8 [N, S, S, 3] → LOGITS FP32 [N, 18].

`network.py` beside it is `rtx_network.py` or `torch_network.py`. A CUDA graph is of one batch size: the crops of all
requests of an `execute()`, which are at most max_batch_size, are joined and filled up to the next size there is.
"""

import json
from pathlib import Path

import numpy as np
from network import Network
from tensors import array_of, response_of

_SMALLEST = 8


def sizes_up_to(most):
    """Batch sizes of which each is twice the one before."""
    sizes = [_SMALLEST]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"])
        file = folder / args["model_version"] / config["parameters"]["model_file"]["string_value"]
        self.sizes = sizes_up_to(config["max_batch_size"])
        # What is compiled for this GPU is kept beside the model, so that a restart need not do it again.
        self.network = Network(file, self.sizes, int(args["model_instance_device_id"]), folder / "compiled")

    def execute(self, requests):
        crops = [array_of(request, "CROPS") for request in requests]
        ends = np.cumsum([len(part) for part in crops])
        np.concatenate(crops, out=self.network.crops[: ends[-1]])  # one copy, into pinned memory
        logits = self.network.run(next(size for size in self.sizes if size >= ends[-1]))
        return [response_of("LOGITS", part) for part in np.split(logits[: ends[-1]], ends[:-1])]
