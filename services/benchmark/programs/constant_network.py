"""Python backend that answers the same logits for every crop, to measure everything but the networks.

Runs in Triton's own environment, in the place of `triton_models/repository/embedded_network/model.py`.
"""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):  # noqa: ARG002 - Triton passes it
        self.logits = np.linspace(1, 0, 18, dtype=np.float32)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        crops = pb_utils.get_input_tensor_by_name(request, "CROPS").as_numpy()
        logits = np.tile(self.logits, (len(crops), 1))
        # See `reply` of the real model.
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":
            return pb_utils.Tensor("LOGITS", logits)
        return pb_utils.Tensor.from_dlpack("LOGITS", logits)
