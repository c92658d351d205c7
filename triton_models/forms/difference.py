"""How a compiled form differs from the ONNX files, and how much of that is let pass."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError

FP32_LARGEST: Final = 1e-3  # of the difference of any logit, same precision
AGREEMENT: Final = {"int8": 0.98, "fp16": 0.99}  # share of crops with the same class after fusion, lower precision


class FormDiffers(ConfigurationError):
    """A compiled form does not answer like the ONNX files; it must not be served."""

    reason = "form_differs"


def difference(reference: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    """Of logits (or probabilities) `[N, C]`: mean and largest absolute difference, and the share with one class."""
    away = np.abs(reference.astype(np.float64) - found)
    return {
        "mean_abs": float(away.mean()),
        "max_abs": float(away.max()),
        "same_class": float((reference.argmax(1) == found.argmax(1)).mean()),
    }


def fault(precision: str, differences: dict[str, dict[str, float]]) -> str | None:
    """What is too far off in the differences of each member and of `fused`; None: nothing.

    fp32 must give every logit within 1e-3. A lower precision must give the same class after fusion, for 98 % of the
    crops in int8, 99 % in fp16; how far its logits are off is reported.
    """
    if not all(np.isfinite(value) for found in differences.values() for value in found.values()):
        return "logits are not finite"
    if precision == "fp32":
        far = {
            name: found["max_abs"]
            for name, found in differences.items()
            if name != "fused" and found["max_abs"] > FP32_LARGEST
        }
        if not far:
            return None
        return f"logits differ by {', '.join(f'{off:.2g} ({name})' for name, off in far.items())}, over {FP32_LARGEST}"
    same, least = differences["fused"]["same_class"], AGREEMENT[precision]
    if same < least:
        return f"{same:.4f} of the crops keep their class after fusion, not {least}"
    return None
