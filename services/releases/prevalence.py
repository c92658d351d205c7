"""How frequent each class is on a slide, corrected for the known errors of the networks.

A count of classes adds up the errors: of a slide with 2 % normal forms, networks that find 75 % of them and name 3 % of
the others so report 4.4 %. How likely each cell is as one of each class is known, so that the mix itself can be
estimated: the one under which all cells of the slide together are likeliest (Saerens et al. 2002, by expectation and
maximisation; from calibrated probabilities, Alexandari et al. 2020). That holds where the cells of each class look as
those did that the networks were calibrated on; under another stain or another microscope it is a guess.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.releases.schema import Fusion

DRAWS: Final = 200
_MOST_STEPS: Final = 300
_STILL: Final = 1e-5  # a share that moves by less in a step stands
_AT_ONCE: Final = 2**21  # numbers in memory
_LEAST: Final = 1e-30  # what float32 keeps of a probability
_SEED: Final = 20261127

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prevalence:
    """The likeliest shares `[C]`, 0 to 1, and drawn ones `[DRAWS, C]`, which spread as the estimate does."""

    shares: Floats
    drawn: Floats

    def interval(self, index: int) -> tuple[float, float, float]:
        """The share of a class and its 95 % interval, which holds the counting and the networks' errors."""
        low, high = np.quantile(self.drawn[:, index], (0.025, 0.975))
        share = float(self.shares[index])
        return share, min(float(low), share), max(float(high), share)


def estimate(probabilities: NDArray[np.float32], fusion: Fusion) -> Prevalence | None:
    """The shares of the classes among the cells whose fused `probabilities` `[N, C]` are given.

    Each draw takes the cells with replacement and another calibration, as uncertain as the release says that it is. The
    same cells give the same draws. `None`: the release does not say how well it is calibrated.
    """
    if fusion.calibration is None:
        return None
    logits = np.log(np.maximum(probabilities, _LEAST, dtype=np.float64))
    if fusion.prior is not None:
        logits -= fusion.prior.shift()
    cells, classes = logits.shape
    rng = np.random.default_rng(_SEED)
    calibrations = fusion.calibration.draw(rng, DRAWS)
    resampled = rng.multinomial(cells, np.full(cells, 1 / cells), DRAWS)
    weights = np.vstack([np.ones(cells), resampled])  # the first row is the estimate itself
    found = np.empty((1 + DRAWS, classes))
    step = max(1, _AT_ONCE // (cells * classes))
    for start in range(0, 1 + DRAWS, step):
        part = slice(start, start + step)
        found[part] = _likeliest(_likelihoods(logits, calibrations[part]), weights[part])
    return Prevalence(found[0], found[1:])


def _likelihoods(logits: Floats, calibrations: Floats) -> Floats:
    """How likely each cell is as one of each class, up to a factor a cell: `[B, N, C]` of logits `[N, C]`."""
    moved = logits / np.exp(calibrations[:, :1, None]) + calibrations[:, None, 1:]
    odds: Floats = np.exp(moved - moved.max(axis=2, keepdims=True))
    return odds


def _likeliest(likelihoods: Floats, weights: Floats) -> Floats:
    """The mixes `[B, C]` under which cells of `likelihoods` `[B, N, C]`, up to a factor a cell, are likeliest.

    `weights` `[B, N]` says how many times each cell counts.
    """
    count = weights.sum(axis=1, keepdims=True)
    shares = np.full((len(likelihoods), likelihoods.shape[2]), 1 / likelihoods.shape[2])
    for _ in range(_MOST_STEPS):
        seen = (likelihoods @ shares[:, :, None])[:, :, 0]
        moved = shares * ((weights / seen)[:, None] @ likelihoods)[:, 0] / count
        still = np.abs(moved - shares).max() < _STILL
        shares = moved
        if still:
            break
    return shares
