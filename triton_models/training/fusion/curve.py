"""How good every mix of two members is, and how surely one is better than another on so many cells.

Between two α of the sweep a handful of cells change sides: the best of it is the best by chance as much as by merit.
How far its lead may be chance is the standard error of the difference on the same cells, by the infinitesimal jackknife
(Efron 1982): each mean over classes is a smooth function of the cells' weights, and its slopes are written out below.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

SWEEP: Final = np.round(np.linspace(0, 1, 201), 4)
_EQUAL: Final = 1e-12  # sums of the same numbers in another order

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FusionObjective(StrEnum):
    """What α maximises, each the plain mean over classes."""

    F1 = "macro_f1"
    RECALL = "macro_recall"
    PRECISION = "macro_precision"


@dataclass(frozen=True, slots=True)
class Curve:
    """The three means over classes at every α of the sweep, `[A]` each.

    `errors` is the standard error, over cells, of how far each α lies below the best of its objective (of equals, the
    one next to 0.5).
    """

    alpha: Floats
    values: dict[FusionObjective, Floats]
    errors: dict[FusionObjective, Floats]

    def as_good(self, objective: FusionObjective) -> NDArray[np.bool_]:
        """Which α `[A]` are at most one standard error below the best, and not below either member alone."""
        values = self.values[objective]
        near = values >= values.max() - self.errors[objective] - _EQUAL
        no_loss = values >= max(values[0], values[-1]) - _EQUAL
        return np.asarray(near & no_loss)


def macro_scores(chosen: Ints, labels: Ints, classes: int) -> dict[FusionObjective, float]:
    """Means over the classes that occur in `labels`; a class that is never chosen has precision 0."""
    return {objective: score for objective, (score, _) in _scores_and_pulls(chosen, labels, classes).items()}


def sweep(first: Floats, second: Floats, labels: Ints) -> Curve:
    """The curve over all α of calibrated logits `[N, C]`."""
    rows = [_scores_and_pulls((a * first + (1 - a) * second).argmax(1), labels, first.shape[1]) for a in SWEEP]
    values, errors = {}, {}
    for objective in FusionObjective:
        values[objective] = np.array([row[objective][0] for row in rows])
        pulls = np.array([row[objective][1] for row in rows])
        equals = np.flatnonzero(values[objective] >= values[objective].max() - _EQUAL)
        best = equals[np.abs(SWEEP[equals] - 0.5).argmin()]
        errors[objective] = np.sqrt(((pulls - pulls[best]) ** 2).sum(1))
    return Curve(SWEEP, values, errors)


def _scores_and_pulls(chosen: Ints, labels: Ints, classes: int) -> dict[FusionObjective, tuple[float, Floats]]:
    """Each mean over classes, and its slopes `[N]`: by how much one more cell like each would change it."""
    table = np.bincount(labels * classes + chosen, minlength=classes * classes).reshape(classes, classes)
    hits, truths, choices = np.diag(table), table.sum(1), table.sum(0)
    there = truths > 0
    hit = chosen == labels
    share = there / there.sum()
    found = {}
    for objective, whole, parts in (
        (FusionObjective.F1, (truths + choices) / 2, ((labels, 0.5), (chosen, 0.5))),
        (FusionObjective.RECALL, truths, ((labels, 1.0),)),
        (FusionObjective.PRECISION, choices, ((chosen, 1.0),)),
    ):
        of_class = hits / np.maximum(whole, 0.5)
        weight = share / np.maximum(whole, 0.5)
        pulls = hit * weight[labels] - sum(part * (of_class * weight)[cells] for cells, part in parts)
        found[objective] = float((share * of_class).sum()), pulls
    return found
