"""What the networks say of a run of crops."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.taxonomy import CLASS_NAMES


@dataclass(frozen=True, slots=True)
class Predictions:
    """Row i is crop i; columns follow the class index order. All `[N, 18]` float32."""

    probabilities: NDArray[np.float32]
    efficientnetv2_s_logits: NDArray[np.float32]
    resnetv2_50_logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Room for `rows` crops, not yet filled."""
        shape = (rows, len(CLASS_NAMES))
        return cls(*(np.empty(shape, np.float32) for _ in range(3)))
