"""Choosing how both members' logits are joined: z = α·z₁/T₁ + (1 − α)·z₂/T₂, on validation logits alone.

T₁ and T₂ are fitted first, so that α compares like with like. The sum of two calibrated members is calibrated again by
a third temperature, which is folded into both: what is released stays the formula above.

α is one number, as in the paper. One α a class is released in its place where nested cross-validation says that it is
better. An α that follows each cell's confidences is compared only: it needs the members' softmax at T₁ and T₂ alone,
which the folded temperatures no longer tell.

The best α of a curve is the best by chance too. Any α that is as good, by what is known of it, may be chosen; of these
the one is taken that is next to the likeliest, which the same cells tell far more surely.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from sklearn.model_selection import StratifiedKFold

from services.errors import PermanentError
from triton_models.training.fusion.curve import SWEEP, Curve, FusionObjective, macro_scores, sweep

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RESAMPLES: Final = 200


class TooFewCells(PermanentError, ValueError):
    """The validation cells are too few to choose a fusion on."""

    reason = "too_few_cells"


class Weighting(StrEnum):
    """How the weight may vary."""

    SCALAR = "scalar"  # the paper's
    PER_CLASS = "per_class"  # released where it wins
    ADAPTIVE = "confidence_adaptive"  # per cell: more to the member that is surer; never released


@dataclass(frozen=True, slots=True)
class Weight:
    """A fitted weight: α for every class, or one per class; `slope` turns it by how the members' confidence differs."""

    weighting: Weighting
    alpha: Floats  # [1] or [classes]
    slope: float = 0.0

    def join(self, first: Floats, second: Floats) -> Floats:
        """Fused logits `[N, C]` of calibrated logits `[N, C]`."""
        alpha = self.alpha
        if self.slope:
            lead = (softmax(first).max(1) - softmax(second).max(1))[:, None]
            alpha = 1 / (1 + np.exp(-(_logit(self.alpha) + self.slope * lead)))
        joined: Floats = alpha * first + (1 - alpha) * second
        return joined


@dataclass(frozen=True, slots=True)
class Comparison:
    """A weighting under nested cross-validation: the objective in each repeat, of weights fitted on the other folds."""

    weighting: Weighting
    scores: Floats
    gain: float  # over the scalar, in the mean of the repeats
    gain_error: float  # its standard error over cells: repeats share their cells, and would make it look small

    @property
    def wins(self) -> bool:
        """Whether it is better than the scalar by more than two standard errors."""
        return self.gain > max(2 * self.gain_error, 1e-6)


@dataclass(frozen=True, slots=True)
class FittedFusion:
    """All that was chosen, and how the choice came about."""

    objective: FusionObjective
    member_temperatures: tuple[float, float]
    fused_temperature: float
    curve: Curve
    likeliest_alpha: float
    scalar: Weight
    best_weighting: Weighting  # by nested cross-validation
    best: Weight
    released: Weight  # one α a class if that wins, else the scalar
    at_alpha: dict[FusionObjective, float]  # of the released weight, on the logits that chose it
    comparisons: dict[Weighting, Comparison]

    @property
    def alpha(self) -> float | list[float]:
        """The released weight of the first member: one number, or one per class."""
        return self.scalar_alpha if self.released.weighting is Weighting.SCALAR else self.released.alpha.tolist()

    @property
    def scalar_alpha(self) -> float:
        """The single weight that was chosen, released or not: where the curve was cut."""
        return float(self.scalar.alpha[0])

    @property
    def released_temperatures(self) -> tuple[float, float]:
        """T₁ and T₂ with the fused temperature folded in."""
        first, second = self.member_temperatures
        return first * self.fused_temperature, second * self.fused_temperature

    def document(self) -> dict[str, Any]:
        """As JSON values. `alpha_as_good`: the least and the largest α that are as good as the best."""
        as_good = self.curve.as_good(self.objective)
        return {
            "objective": str(self.objective),
            "alpha": self.alpha,
            "released_weighting": str(self.released.weighting),
            "scalar_alpha": self.scalar_alpha,
            "temperatures": list(self.released_temperatures),
            "member_temperatures": list(self.member_temperatures),
            "fused_temperature": self.fused_temperature,
            "at_alpha": {str(name): value for name, value in self.at_alpha.items()},
            "curve": {
                "alpha": self.curve.alpha.tolist(),
                **{str(name): values.tolist() for name, values in self.curve.values.items()},
                "standard_errors": {str(name): errors.tolist() for name, errors in self.curve.errors.items()},
                "as_good": as_good.tolist(),
            },
            "alpha_as_good": [float(self.curve.alpha[as_good].min()), float(self.curve.alpha[as_good].max())],
            "likeliest_alpha": self.likeliest_alpha,
            "nested_cross_validation": {
                str(weighting): {
                    "mean": float(c.scores.mean()),
                    "gain_over_scalar": c.gain,
                    "standard_error": c.gain_error,
                    "wins": c.wins,
                    "repeats": c.scores.tolist(),
                }
                for weighting, c in self.comparisons.items()
            },
            "best_weighting": str(self.best_weighting),
            "best_weighting_weights": {"alpha": self.best.alpha.tolist(), "slope": self.best.slope},
        }


def softmax(logits: Floats) -> Floats:
    """Probabilities `[N, C]`."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    shares: Floats = odds / odds.sum(1, keepdims=True)
    return shares


def cross_entropy(logits: Floats, labels: Ints) -> float:
    """Mean negative log likelihood."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The T in 0.05…20 whose softmax(z/T) is likeliest (Guo et al. 2017)."""
    found = minimize_scalar(
        lambda log_t: cross_entropy(logits / np.exp(log_t), labels),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def fit_scalar(first: Floats, second: Floats, labels: Ints, objective: FusionObjective) -> Weight:
    """Of the α that are as good as the best of the sweep, the one next to the likeliest.

    What few cells say of macro-F1 leaves a wide choice; what they say of the likelihood narrows it.
    """
    as_good = np.flatnonzero(sweep(first, second, labels).as_good(objective))
    away = np.abs(SWEEP[as_good] - likeliest_alpha(first, second, labels))
    return Weight(Weighting.SCALAR, SWEEP[as_good[[away.argmin()]]])


def likeliest_alpha(first: Floats, second: Floats, labels: Ints) -> float:
    """The α in 0…1 whose mix of logits `[N, C]`, at the temperature that suits it best, is likeliest.

    Mix and temperature are two weights of a convex problem: a·z₁ + b·z₂ with a, b ≥ 0, of which α = a ÷ (a + b).
    """
    rows = np.arange(len(labels))

    def loss(weights: Floats) -> tuple[float, Floats]:
        joined = weights[0] * first + weights[1] * second
        off = softmax(joined)
        off[rows, labels] -= 1
        return cross_entropy(joined, labels), np.array([(off * z).sum() for z in (first, second)]) / len(labels)

    a, b = minimize(loss, np.full(2, 0.5), jac=True, bounds=[(0, None)] * 2, method="L-BFGS-B").x
    return float(a / (a + b)) if a + b else 0.5


def fit_per_class(first: Floats, second: Floats, labels: Ints, objective: FusionObjective) -> Weight:
    """One α a class, the likeliest, drawn to the scalar one by a penalty of 1 / N."""
    scalar = float(fit_scalar(first, second, labels, objective).alpha[0])

    def loss(alpha: Floats) -> float:
        pull = ((alpha - scalar) ** 2).sum() / len(labels)
        return cross_entropy(alpha * first + (1 - alpha) * second, labels) + float(pull)

    classes = first.shape[1]
    found = minimize(loss, np.full(classes, scalar), bounds=[(0, 1)] * classes, method="L-BFGS-B")
    return Weight(Weighting.PER_CLASS, np.clip(found.x, 0, 1))


def fit_adaptive(first: Floats, second: Floats, labels: Ints, objective: FusionObjective) -> Weight:
    """α of each cell = σ(logit α + slope · (confidence₁ − confidence₂)); the slope is the likeliest."""
    scalar = np.clip(fit_scalar(first, second, labels, objective).alpha, 0.02, 0.98)

    def loss(slope: float) -> float:
        return cross_entropy(Weight(Weighting.ADAPTIVE, scalar, slope).join(first, second), labels)

    found = minimize_scalar(loss, bounds=(-8.0, 8.0), method="bounded")
    return Weight(Weighting.ADAPTIVE, scalar, float(found.x))


FITS: Final[dict[Weighting, Callable[[Floats, Floats, Ints, FusionObjective], Weight]]] = {
    Weighting.SCALAR: fit_scalar,
    Weighting.PER_CLASS: fit_per_class,
    Weighting.ADAPTIVE: fit_adaptive,
}


def compare(
    first: Floats, second: Floats, labels: Ints, objective: FusionObjective, folds: int, repeats: int, seed: int
) -> dict[Weighting, Comparison]:
    """Each weighting by repeated, stratified, nested cross-validation of raw logits; temperatures are fitted inside."""
    chosen = {weighting: np.empty((repeats, len(labels)), np.int64) for weighting in Weighting}
    for repeat in range(repeats):
        cutter = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
        for fitted, held in cutter.split(first, labels):
            t1, t2 = (fit_temperature(z[fitted], labels[fitted]) for z in (first, second))
            for weighting, fit in FITS.items():
                weight = fit(first[fitted] / t1, second[fitted] / t2, labels[fitted], objective)
                chosen[weighting][repeat, held] = weight.join(first[held] / t1, second[held] / t2).argmax(1)
    classes = first.shape[1]

    def scores(weighting: Weighting, cells: Ints) -> Floats:
        rows = chosen[weighting][:, cells]
        return np.array([macro_scores(row, labels[cells], classes)[objective] for row in rows])

    everyone = np.arange(len(labels))
    draw = np.random.default_rng(seed)
    drawn = [draw.integers(0, len(labels), len(labels)) for _ in range(_RESAMPLES)]
    plain = [scores(Weighting.SCALAR, cells).mean() for cells in drawn]
    found = {}
    for weighting in Weighting:
        values = scores(weighting, everyone)
        gains = [scores(weighting, cells).mean() - base for cells, base in zip(drawn, plain, strict=True)]
        gain = float(values.mean() - scores(Weighting.SCALAR, everyone).mean())
        found[weighting] = Comparison(weighting, values, gain, float(np.std(gains)))
    return found


def fit_fusion(
    first_logits: NDArray[np.float32],
    second_logits: NDArray[np.float32],
    labels: Ints,
    objective: FusionObjective = FusionObjective.F1,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 0,
) -> FittedFusion:
    """Fit temperatures and the weight on validation logits `[N, C]` of both members.

    Raises:
        TooFewCells: a class has a single cell.
    """
    counts = np.bincount(labels)
    folds = min(folds, int(counts[counts > 0].min()))
    if folds < 2:
        raise TooFewCells(
            "a class has a single validation cell, and cross-validation needs two: validate on more images"
        )
    first, second = first_logits.astype(np.float64), second_logits.astype(np.float64)
    t1, t2 = fit_temperature(first, labels), fit_temperature(second, labels)
    comparisons = compare(first, second, labels, objective, folds, repeats, seed)
    winners = [weighting for weighting in Weighting if comparisons[weighting].wins]
    winner = max(winners, key=lambda weighting: comparisons[weighting].gain, default=Weighting.SCALAR)
    first, second = first / t1, second / t2
    scalar = fit_scalar(first, second, labels, objective)
    by_class = comparisons[Weighting.PER_CLASS].wins
    released = fit_per_class(first, second, labels, objective) if by_class else scalar
    joined = released.join(first, second)
    return FittedFusion(
        objective=objective,
        member_temperatures=(t1, t2),
        fused_temperature=fit_temperature(joined, labels),
        curve=sweep(first, second, labels),
        likeliest_alpha=likeliest_alpha(first, second, labels),
        scalar=scalar,
        best_weighting=winner,
        best=FITS[winner](first, second, labels, objective),
        released=released,
        at_alpha=macro_scores(joined.argmax(1), labels, first.shape[1]),
        comparisons=comparisons,
    )


def _logit(share: Floats) -> Floats:
    logit: Floats = np.log(share / (1 - share))
    return logit
