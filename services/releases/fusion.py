"""Linear fusion of both networks' logits, as `triton_models/repository/logit_fusion` computes it on the server.

Here it serves to choose a weight and to apply a new one to stored logits; a test holds the two together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fuse(
    efficientnetv2_s_logits: NDArray[np.float32],
    resnetv2_50_logits: NDArray[np.float32],
    *,
    alpha: float | Sequence[float],
    efficientnetv2_s_temperature: float = 1.0,
    resnetv2_50_temperature: float = 1.0,
    shift: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Probabilities `[N, C]` = softmax(α·z₁/T₁ + (1 − α)·z₂/T₂ + s) of the logits `[N, C]`; α weighs EfficientNetV2-S.

    α is one number for all classes, or one per class in the order of the logits. `shift` is s, `[C]`, as `log_shift`
    gives it; None: 0.

    Raises:
        ValueError: α is outside 0..1 or not one per class, or a temperature is not positive.
    """
    weight = np.asarray(alpha, np.float64)
    classes = efficientnetv2_s_logits.shape[1]
    if weight.shape not in ((), (classes,)):
        raise ValueError(f"alpha must be one number or {classes}, one per class, not of shape {weight.shape}")
    if not ((weight >= 0) & (weight <= 1)).all() or efficientnetv2_s_temperature <= 0 or resnetv2_50_temperature <= 0:
        raise ValueError(f"alpha {alpha} must be in 0..1, temperatures positive")
    z = (
        weight / efficientnetv2_s_temperature * efficientnetv2_s_logits.astype(np.float64)
        + (1 - weight) / resnetv2_50_temperature * resnetv2_50_logits
        + (0 if shift is None else shift)
    )
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def log_shift(learnt: Sequence[float], meant: Sequence[float], strength: float) -> NDArray[np.float64]:
    """What is added to the logits `[C]` of networks that learnt from one mix of classes, for cells of another.

    strength · (log meant − log learnt), of the shares of each class. 1 is Bayes' rule, right for cells of the mix that
    is meant (Menon et al. 2021, "Long-tail learning via logit adjustment"); less keeps more of the rare classes.
    """
    shift: NDArray[np.float64] = strength * (np.log(np.asarray(meant, np.float64)) - np.log(learnt))
    return shift


def weight_text(alpha: float | Sequence[float]) -> str:
    """α as a reader is told it: the number, or the range of one per class."""
    if isinstance(alpha, Sequence):
        return f"{min(alpha):.3g} to {max(alpha):.3g}, one per class"
    return f"{alpha:g}"
