"""Shares corrected for the known errors of the networks, for the slides and specimens of a batch."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from services.releases.prevalence import Prevalence, estimate
from services.releases.schema import Fusion
from services.reporting import queries
from services.reporting.queries import BatchRow, SlideProbabilities
from services.reporting.report import CorrectedClass, CorrectedShare, CorrectedShares
from services.taxonomy import CLASSES, NORMAL


class Correction:
    """What the networks said of each cell of a batch, and what is known of their errors."""

    def __init__(self, fusions: Mapping[str, Fusion], probabilities: Mapping[str, SlideProbabilities]) -> None:
        self._fusions = fusions
        self._probabilities = probabilities

    @classmethod
    def of_batch(cls, session: Session, batch: BatchRow) -> "Correction":
        """Read it; nothing of cells where no release of the batch is calibrated."""
        fusions = queries.fusions(session, batch.release_ids or [])
        calibrated = any(fusion.calibration is not None for fusion in fusions.values())
        return cls(fusions, queries.probabilities_by_slide(session, batch) if calibrated else {})

    def of_slide(self, slide_id: str, release_id: str | None) -> CorrectedShares | None:
        """The corrected shares of all cells of a slide, analysed under this release; `None` where there are none.

        `None` as well where the release is not calibrated.
        """
        known = self._probabilities.get(slide_id)
        return None if known is None else self._estimated([known.of_cells], release_id)

    def of_specimen(self, slide_ids: Sequence[str], release_id: str) -> CorrectedShares | None:
        """The same of the slides of one specimen together; an image that two of them hold counts once."""
        known = [self._probabilities[slide_id] for slide_id in slide_ids if slide_id in self._probabilities]
        return self._estimated([slide.of_cells[~slide.repeated] for slide in known], release_id)

    def _estimated(self, cells: Sequence[NDArray[np.float32]], release_id: str | None) -> CorrectedShares | None:
        fusion = None if release_id is None else self._fusions.get(release_id)
        if fusion is None or not sum(map(len, cells)):
            return None
        found = estimate(np.concatenate(cells), fusion)
        return None if found is None else _shares(found)


def _shares(found: Prevalence) -> CorrectedShares:
    return CorrectedShares(
        normal_forms=CorrectedShare(**_figures(found, NORMAL.index)),
        distribution=tuple(CorrectedClass(class_code=c.code, **_figures(found, c.index)) for c in CLASSES),
    )


def _figures(found: Prevalence, index: int) -> dict[str, float]:
    share, low, high = found.interval(index)
    return {
        name: round(100 * value, 2)
        for name, value in zip(("pct", "low_pct", "high_pct"), (share, low, high), strict=True)
    }
