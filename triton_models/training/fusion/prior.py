"""Moving a release's logits from the mix of classes that its networks learnt from to the one that it is meant for.

Networks that learnt from all classes alike name the rare ones too often on a slide. Bayes' rule says how far to move
their logits for another mix; how far is best is measured, as the rule is right only for logits that are, and as slides
differ: strength 1 costs the rare classes more on an even mix than it gains on the other.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.errors import PermanentError
from services.evaluation.mixes import EQUAL, PUBLISHED, macro_f1, mixes_of
from services.releases.schema import Prior
from triton_models.training.config import ClassWeights, Loss, Objective

STRENGTHS: Final = np.round(np.linspace(0, 1, 21), 4)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class MixUnknown(PermanentError, ValueError):
    """A release of these classes, or of these runs, cannot be meant for that mix."""

    reason = "mix_unknown"


def prior_of(counts: Mapping[str, int], objective: Objective) -> Prior:
    """The prior of networks that were trained on `counts` cells a class, for the published set's mix; strength 1.

    Raises:
        MixUnknown: the classes are not the 18, or a class has no cell.
    """
    meant = mixes_of(tuple(counts)).get(PUBLISHED)
    if meant is None:
        raise MixUnknown("the published mix is one of the 18 classes; this release has others: leave --mix out")
    if missing := [name for name, cells in counts.items() if not cells]:
        raise MixUnknown(f"the networks learnt from no cell of {', '.join(missing)}: no mix has a share of them")
    shares = np.array(list(counts.values()), np.float64)
    if objective.loss is Loss.LOGIT_ADJUSTED or objective.balanced_sampler:
        shares = np.ones(len(counts))  # both balance by themselves, and take no weights
    else:
        match objective.class_weights:
            case ClassWeights.INVERSE:
                shares = np.ones(len(counts))
            case ClassWeights.EFFECTIVE:  # cells · their weight, as the loss has it
                shares = shares * (1 - objective.effective_beta) / (1 - objective.effective_beta**shares)
            case ClassWeights.NONE:
                pass
    return Prior(learnt=tuple((shares / shares.sum()).tolist()), meant=meant, strength=1.0)


def fit_strength(logits: Floats, labels: Ints, prior: Prior) -> Prior:
    """The prior with the strength that has the best mean of macro-F1 on equal classes and on the mix that is meant.

    Among equals the strongest, the nearest to Bayes' rule.

    Args:
        logits: fused and calibrated, `[N, C]`, without any shift.
        labels: class index of each cell.
        prior: the mixes; its own strength is not looked at.
    """
    candidates = [prior.model_copy(update={"strength": float(strength)}) for strength in STRENGTHS]
    return max(reversed(candidates), key=lambda one: np.mean(list(f1_by_mix(logits, labels, one).values())))


def f1_by_mix(logits: Floats, labels: Ints, prior: Prior) -> dict[str, float]:
    """Macro-F1 of logits `[N, C]` moved by `prior`, on equal classes and on the mix that is meant."""
    said = (logits + prior.shift()).argmax(1)
    even = (1 / logits.shape[1],) * logits.shape[1]
    return {EQUAL: macro_f1(labels, said, even), "meant": macro_f1(labels, said, prior.meant)}
