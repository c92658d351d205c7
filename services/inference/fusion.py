"""Linear fusion of both networks' logits, as `triton_models/repository/logit_fusion` computes it on the server.

Here it serves to choose a weight and to apply a new one to stored logits; a test holds the two together.
"""

import numpy as np
from numpy.typing import NDArray


def fuse(
    efficientnetv2_s_logits: NDArray[np.float32],
    resnetv2_50_logits: NDArray[np.float32],
    *,
    alpha: float,
    efficientnetv2_s_temperature: float = 1.0,
    resnetv2_50_temperature: float = 1.0,
) -> NDArray[np.float32]:
    """Probabilities `[N, C]` = softmax(α·z₁/T₁ + (1 − α)·z₂/T₂) of the logits `[N, C]`; α weighs EfficientNetV2-S.

    Raises:
        ValueError: α is outside 0..1, or a temperature is not positive.
    """
    if not 0 <= alpha <= 1 or efficientnetv2_s_temperature <= 0 or resnetv2_50_temperature <= 0:
        raise ValueError(f"alpha {alpha} must be in 0..1, temperatures positive")
    z = (
        alpha / efficientnetv2_s_temperature * efficientnetv2_s_logits.astype(np.float64)
        + (1 - alpha) / resnetv2_50_temperature * resnetv2_50_logits
    )
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities
