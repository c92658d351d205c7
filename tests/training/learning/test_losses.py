"""Losses against torch's own and against their papers' formulas."""

import pytest
import torch
from torch.nn import functional

from triton_models.training.config import ClassWeights, Loss, Objective
from triton_models.training.learning.losses import ClassifierLoss, class_weights

COUNTS = [50, 10, 2]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, generator=generator) * 3, torch.randint(0, 3, (16,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", list(ClassWeights))
def test_cross_entropy_is_torchs(
    batch: tuple[torch.Tensor, torch.Tensor], weights: ClassWeights, smoothing: float
) -> None:
    logits, labels = batch
    objective = Objective(class_weights=weights, label_smoothing=smoothing)
    wanted = functional.cross_entropy(
        logits, labels, weight=class_weights(COUNTS, objective), label_smoothing=smoothing
    )
    torch.testing.assert_close(ClassifierLoss(objective, COUNTS)(logits, labels), wanted)
    shares = functional.one_hot(labels, 3).float()
    torch.testing.assert_close(ClassifierLoss(objective, COUNTS)(logits, shares), wanted)


def test_weights_are_inverse_or_by_effective_number_and_one_in_the_mean() -> None:
    inverse = class_weights(COUNTS, Objective(class_weights=ClassWeights.INVERSE))
    assert (inverse[1] / inverse[0]).item() == pytest.approx(5)
    effective = class_weights(COUNTS, Objective(class_weights=ClassWeights.EFFECTIVE, effective_beta=0.9))
    assert (effective[2] / effective[1]).item() == pytest.approx((1 - 0.9**10) / (1 - 0.9**2), rel=1e-5)
    for weights in (inverse, effective):
        assert (weights * torch.tensor(COUNTS)).sum().item() == pytest.approx(62, rel=1e-5)
    assert class_weights([4, 0], Objective())[1] == 0


def test_focal_loss_lightens_what_is_known(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    plain = Objective(class_weights=ClassWeights.NONE, label_smoothing=0, loss=Loss.FOCAL, focal_gamma=2)
    p = torch.softmax(logits, 1)[torch.arange(16), labels]
    wanted = (-((1 - p) ** 2) * torch.log(p)).mean()
    torch.testing.assert_close(ClassifierLoss(plain, COUNTS)(logits, labels), wanted)


def test_logit_adjustment_adds_the_log_of_each_share(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    objective = Objective(loss=Loss.LOGIT_ADJUSTED, class_weights=ClassWeights.NONE, label_smoothing=0)
    wanted = functional.cross_entropy(logits + torch.log(torch.tensor(COUNTS) / 62), labels)
    torch.testing.assert_close(ClassifierLoss(objective, COUNTS)(logits, labels), wanted)


def test_balancing_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Objective(balanced_sampler=True)
    with pytest.raises(ValueError, match="by itself"):
        Objective(loss=Loss.LOGIT_ADJUSTED)
