"""Raw and corrected shares of normal forms on slides of known mixtures, put together from cells of known class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from services.database.session import transaction
from services.errors import PermanentError
from services.evaluation.mixes import PUBLISHED, mixes_of
from services.evaluation.queries import releases_of
from services.releases.prevalence import estimate
from services.releases.registry import recorded_release
from services.releases.schema import Fusion
from services.reporting.statistics import wilson
from services.taxonomy import CLASS_NAMES, NORMAL

_NORMAL_SHARES: Final = (0.01, 0.04, 0.10, 0.20)

Ints = NDArray[np.int64]


class NotScorable(PermanentError):
    """There is no cell of a class to put slides together from, or no calibration to correct shares with."""

    reason = "not_scorable"


@dataclass(frozen=True, slots=True)
class ShareFigures:
    """Of one way to tell the share of normal forms, over all slides of a mixture; percentage points but for `coverage`.

    `bias` and `error` are the mean and the root mean square of what is told less what is true, `coverage` the share of
    slides whose 95 % interval holds the true one, `width` the mean width of that interval.
    """

    bias: float
    error: float
    coverage: float
    width: float


@dataclass(frozen=True, slots=True)
class MixtureFigures:
    """One mixture: its true share of normal forms, %, and how raw and corrected shares tell it."""

    mixture: str
    true_pct: float
    slides: int
    raw: ShareFigures
    corrected: ShareFigures


def fusion_of(engine: Engine, batch_key: int) -> Fusion:
    """The fusion of the release under which a batch was analysed.

    Raises:
        NotScorable: it was analysed under several, or not at all.
    """
    with transaction(engine) as session:
        found = releases_of(session, batch_key)
    if len(found) != 1:
        raise NotScorable(f"the batch was analysed under {len(found)} releases: run it again while none is activated")
    return recorded_release(engine, found[0]).fusion


def mixtures() -> dict[str, NDArray[np.float64]]:
    """Shares of the classes by name: so many normal forms, the others as in the published set; equal; as published."""
    known = mixes_of(CLASS_NAMES)
    found = {}
    for normal in _NORMAL_SHARES:
        mix = np.array(known[PUBLISHED])
        mix[NORMAL.index] = 0
        mix *= (1 - normal) / mix.sum()
        mix[NORMAL.index] = normal
        found[f"{normal:.0%} normal"] = mix
    return found | {name: np.array(mix) for name, mix in known.items()}


def score_prevalence(
    probabilities: NDArray[np.float32],
    labels: Ints,
    counted: NDArray[np.bool_],
    fusion: Fusion,
    *,
    slides: int = 50,
    cells: tuple[int, int] = (200, 300),
    seed: int = 1,
) -> list[MixtureFigures]:
    """Tell the share of normal forms on `slides` slides of each mixture, drawn with replacement from labelled cells.

    Args:
        probabilities: fused, `[N, 18]`, as the release with `fusion` gives them.
        labels: class index of each cell.
        counted: which of them count; the others are drawn too, and left out.
        fusion: of that release; it must have a calibration.
        slides: of each mixture.
        cells: the least and the most of a slide, those that do not count among them.
        seed: of the drawing.

    Raises:
        NotScorable: a class has no cell, none counts, or the release has no calibration.
    """
    if not counted.any():
        raise NotScorable("no cell counts under this rule")
    if fusion.calibration is None:
        raise NotScorable("the release has no calibration, so that its shares cannot be corrected: fuse it again")
    of_class = [np.flatnonzero(labels == index) for index in range(len(CLASS_NAMES))]
    if missing := [name for name, found in zip(CLASS_NAMES, of_class, strict=True) if not len(found)]:
        raise NotScorable(f"there is no cell of {', '.join(missing)}: draw more, with --balanced")
    rng = np.random.default_rng(seed)
    result = []
    for name, mix in mixtures().items():
        raw: list[tuple[float, ...]] = []
        corrected: list[tuple[float, ...]] = []
        for _ in range(slides):
            counts = rng.multinomial(rng.integers(cells[0], cells[1] + 1), mix)
            slide = np.concatenate([rng.choice(at, n) for at, n in zip(of_class, counts, strict=True)])
            slide = slide[counted[slide]]
            share = wilson(int((probabilities[slide].argmax(axis=1) == NORMAL.index).sum()), len(slide))
            raw.append((share.pct, share.low_pct, share.high_pct))
            found = estimate(probabilities[slide], fusion)
            assert found is not None  # noqa: S101 - it has a calibration
            corrected.append(tuple(100 * value for value in found.interval(NORMAL.index)))
        true = 100 * float(mix[NORMAL.index])
        result.append(MixtureFigures(name, true, slides, _figures(raw, true), _figures(corrected, true)))
    return result


def _figures(told: Sequence[tuple[float, ...]], true: float) -> ShareFigures:
    share, low, high = np.array(told).T
    return ShareFigures(
        bias=round(float((share - true).mean()), 2),
        error=round(float(np.sqrt(((share - true) ** 2).mean())), 2),
        coverage=round(float(((low <= true) & (true <= high)).mean()), 3),
        width=round(float((high - low).mean()), 2),
    )
