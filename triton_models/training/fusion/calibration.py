"""Fits how fused logits become probabilities for estimating the mix of a slide, and how surely that is known.

A temperature and a bias a class ("BCTS", Alexandari et al. 2020): probabilities that are right on average over all
cells may still lean towards a class, and estimating a mix adds up just that.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from services.releases.schema import Calibration

_FITS: Final = 100
_DIGITS: Final = 5
_JITTER: Final = 1e-10

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fit_calibration(logits: Floats, labels: Ints, seed: int = 0) -> Calibration:
    """Fit on labelled cells, and on as many resamples of them (class by class) as tell how far the fit may be off.

    Classes weigh the same, whatever their cells.

    Args:
        logits: fused, `[N, C]`, without any shift to a mix.
        labels: class index of each cell.
        seed: of the resamples.
    """
    draw = np.random.default_rng(seed)
    of_class = [np.flatnonzero(labels == index) for index in np.unique(labels)]
    mean = _fit(logits, labels, np.zeros(1 + logits.shape[1]))
    resamples = (np.concatenate([draw.choice(cells, len(cells)) for cells in of_class]) for _ in range(_FITS))
    fits = np.array([_fit(logits[cells], labels[cells], mean) for cells in resamples])
    spread = np.cov(fits.T) + _JITTER * np.eye(fits.shape[1])
    factor = np.linalg.cholesky(spread)
    return Calibration(
        mean=tuple(np.round(mean, _DIGITS).tolist()),
        factor=tuple(tuple(np.round(row[: at + 1], _DIGITS).tolist()) for at, row in enumerate(factor)),
        cells=len(labels),
    )


def _fit(z: Floats, y: Ints, start: Floats) -> Floats:
    """The likeliest log temperature and biases `[1 + C]` of logits `[N, C]` with classes `[N]`.

    The biases are drawn to 0 as by one cell: they have no level, and a class that is told without fault has no end.
    """
    count = np.bincount(y, minlength=z.shape[1])
    weights = (len(y) / np.count_nonzero(count) / np.maximum(count, 1))[y] / len(y)
    rows = np.arange(len(y))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scale, bias = np.exp(-parameters[0]), parameters[1:]
        moved = z * scale + bias
        odds = np.exp(moved - moved.max(1, keepdims=True))
        shares = odds / odds.sum(1, keepdims=True)
        pull = bias / len(y)
        value = -(weights * np.log(np.maximum(shares[rows, y], 1e-300))).sum() + (pull * bias).sum() / 2
        slope = shares.copy()
        slope[rows, y] -= 1
        slope *= weights[:, None]
        return float(value), np.concatenate([[-(slope * z).sum() * scale], slope.sum(0) + pull])

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
