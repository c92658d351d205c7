"""Python backend that joins the logits of both networks: z = α·z1/T1 + (1 - α)·z2/T2 + s, PROBABILITIES = softmax(z).

Runs in Triton's own environment and imports nothing of morphbatch; `services/releases/fusion.py` holds the same
formula for the service, and a test holds the two together. Weight, temperatures, prior and classes are read from
fusion.json in the version folder. α is one number there, or one per class; s = strength·(log meant - log learnt) of the
prior, 0 without one.
"""

import json
from pathlib import Path

import numpy as np
from tensors import array_of, response_of


def fuse(first, second, alpha, first_temperature, second_temperature, shift=0.0):
    alpha = np.asarray(alpha, np.float64)
    first_weight = (alpha / first_temperature).astype(np.float32)
    second_weight = ((1.0 - alpha) / second_temperature).astype(np.float32)
    z = first_weight * first + second_weight * second + np.float32(shift)
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return (z / z.sum(axis=1, keepdims=True)).astype(np.float32)


class TritonPythonModel:
    def initialize(self, args):
        fusion = json.loads((Path(args["model_repository"]) / args["model_version"] / "fusion.json").read_text())
        config = json.loads(args["model_config"])
        if ",".join(fusion["classes"]) != config["parameters"]["classes"]["string_value"]:
            raise ValueError("fusion.json and config.pbtxt differ in their classes; lay the repository out again")
        self.alpha = np.asarray(fusion["alpha"], np.float64)
        if self.alpha.shape not in ((), (len(fusion["classes"]),)):
            raise ValueError(f"alpha must be one number or {len(fusion['classes'])}, one per class: {fusion['alpha']}")
        if not ((self.alpha >= 0) & (self.alpha <= 1)).all():
            raise ValueError(f"alpha must be in 0..1: {fusion['alpha']}")
        temperatures = fusion["temperatures"]
        self.temperatures = float(temperatures["efficientnetv2_s"]), float(temperatures["resnetv2_50"])
        prior = fusion.get("prior")
        self.shift = 0.0
        if prior is not None:
            self.shift = prior["strength"] * (np.log(prior["meant"]) - np.log(prior["learnt"]))

    def execute(self, requests):
        responses = []
        for request in requests:
            first, second = (array_of(request, name) for name in ("EFFICIENTNETV2_S_LOGITS", "RESNETV2_50_LOGITS"))
            probabilities = fuse(first, second, self.alpha, *self.temperatures, self.shift)
            responses.append(response_of("PROBABILITIES", probabilities))
        return responses
