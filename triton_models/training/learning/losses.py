"""The losses, each on hard labels or on shares of classes (mixed crops), each with class weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from triton_models.training.config import ClassWeights, Loss, Objective


def class_weights(counts: Sequence[int], objective: Objective) -> Tensor:
    """The weight `[classes]` of each class, whose mean over all cells is 1. A class without cells weighs 0.

    Args:
        counts: training cells a class.
        objective: which weighting; `effective` is (1 - β) / (1 - βⁿ), Cui et al. 2019, equation 1.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    match objective.class_weights:
        case ClassWeights.NONE:
            weights = torch.ones_like(n)
        case ClassWeights.INVERSE:
            weights = 1 / n.clamp(min=1)
        case ClassWeights.EFFECTIVE:
            beta = objective.effective_beta
            weights = (1 - beta) / (1 - beta ** n.clamp(min=1))
    weights = torch.where(n > 0, weights, 0.0)
    return (weights * n.sum() / (weights * n).sum()).float()


class ClassifierLoss(nn.Module):
    """Loss of logits `[N, classes]` against labels `[N]` or shares `[N, classes]`.

    Equal to `torch.nn.functional.cross_entropy(weight, label_smoothing)` for hard labels and plain cross-entropy.
    Focal: each term times (1 - p)^γ, Lin et al. 2017. Logit-adjusted: τ·log of the class's share is added
    to its logit while training, Menon et al. 2021, equation 10.
    """

    def __init__(self, objective: Objective, counts: Sequence[int]) -> None:
        super().__init__()
        self.objective = objective
        self.weights: Tensor
        self.shift: Tensor
        self.register_buffer("weights", class_weights(counts, objective))
        shares = torch.tensor(counts, dtype=torch.float32).clamp(min=0.5)
        self.register_buffer("shift", objective.adjustment_tau * torch.log(shares / shares.sum()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted mean loss of a batch, a scalar."""
        logits = logits.float()
        classes = logits.shape[1]
        shares = labels if labels.ndim == 2 else functional.one_hot(labels, classes).float()
        total = (shares * self.weights).sum()
        if self.objective.loss is Loss.LOGIT_ADJUSTED:
            logits = logits + self.shift
        smoothing = self.objective.label_smoothing
        target = shares * (1 - smoothing) + smoothing / classes
        log_p = functional.log_softmax(logits, dim=1)
        terms = -target * self.weights * log_p
        if self.objective.loss is Loss.FOCAL:
            terms = terms * (1 - log_p.exp()) ** self.objective.focal_gamma
        return terms.sum() / total
