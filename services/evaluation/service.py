"""Score the whole service on drawn smears: what it has analysed against the truth it was drawn from.

A true cell is one whose head is whole. It matches the cell that the service stored with IoU ≥ 0.5 of the head boxes,
best pairs first. The figures of the classes are over matched cells that count; what was missed shows in `matched`
alone, and cells that were found and do not count in `not_counted`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from services.database.session import transaction
from services.documents import read_json_lines
from services.evaluation.annotations import AnnotationsUnreadable
from services.evaluation.calibration import calibration_error, error_if_calibrated
from services.evaluation.detector import match_boxes
from services.evaluation.mixes import f1_by_class, macro_f1, mixes_of
from services.evaluation.queries import StoredCell, stored_cells
from services.imaging.types import NotCounted
from services.releases.counting import why_not_counted
from services.releases.schema import MEMBERS
from services.taxonomy import CLASS_NAMES, class_named

TRUTH: Final = "truth.jsonl"

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """`macro_f1` and `accuracy` by member and `fused`; `ece` is that of the fused probabilities.

    `macro_f1_by_mix` is what macro-F1 would be with the classes equally frequent, and with the published set's mix.
    `ece_if_calibrated` is what chance alone would show on as many cells. Of the `cells` that were drawn, `matched`
    count, and `not_counted` were found too and do not.

    A figure is None when no cell matched.
    """

    cells: int
    matched: int
    not_counted: int
    false: int
    macro_f1: dict[str, float | None]
    macro_f1_by_mix: dict[str, dict[str, float | None]]
    accuracy: dict[str, float | None]
    ece: float | None
    ece_if_calibrated: float | None
    f1_by_class: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Truth:
    boxes: list[Sequence[float]]
    classes: list[int]
    whole: list[bool]


def score_service(engine: Engine, batches: Mapping[int, Path]) -> ServiceFigures:
    """Compare the cells of closed batches, by key, with the truth in the folders where their images came from.

    Raises:
        AnnotationsUnreadable: a folder has no truth of drawn smears, or a line of it is malformed.
    """
    found = matched_cells(engine, batches)
    return _figures(found)


@dataclass(frozen=True, slots=True)
class MatchedCells:
    """The cells that were drawn and found: their true classes `labels` `[N]`, and as stored.

    `cells` whole cells were drawn, `false` cells that count were stored where none was drawn.
    """

    cells: int
    false: int
    labels: Ints
    matched: list[StoredCell]

    def counted(self, minimum: float | None = None) -> NDArray[np.bool_]:
        """Which of the N count: as stored, or if the border may cut them to `minimum` of their crop."""
        if minimum is None:
            return np.array([cell.not_counted is None for cell in self.matched], np.bool_)
        return np.array([_counts(cell, minimum) for cell in self.matched], np.bool_)


def matched_cells(engine: Engine, batches: Mapping[int, Path]) -> MatchedCells:
    """Match the cells of closed batches, by key, with the truth in the folders where their images came from.

    Raises:
        AnnotationsUnreadable: a folder has no truth of drawn smears, or a line of it is malformed.
    """
    labels: list[int] = []
    matched: list[StoredCell] = []
    cells = false = 0
    for batch_key, folder in batches.items():
        truth = _read_truth(folder / TRUTH)
        stored = _read_cells(engine, batch_key)
        cells += sum(sum(true.whole) for true in truth.values())
        for key, true in truth.items():
            found = stored.get(key, [])
            pairs = match_boxes(true.boxes, [(c.x0, c.y0, c.x1, c.y1) for c in found])
            false += sum(cell.not_counted is None for n, cell in enumerate(found) if n not in pairs.values())
            for index, other in pairs.items():
                if true.whole[index]:
                    labels.append(true.classes[index])
                    matched.append(found[other])
    return MatchedCells(cells, false, np.array(labels, np.int64), matched)


def _counts(cell: StoredCell, minimum: float) -> bool:
    seen = None if cell.not_counted in (None, NotCounted.CUT_BY_BORDER) else NotCounted(cell.not_counted)
    return why_not_counted(seen, cell.crop_inside_share, minimum) is None


def _figures(found: MatchedCells) -> ServiceFigures:
    counted = found.counted()
    labels, matched = found.labels[counted], [found.matched[at] for at in np.flatnonzero(counted)]
    if not len(labels):
        nothing: dict[str, float | None] = dict.fromkeys((*MEMBERS, "fused"))
        return ServiceFigures(
            found.cells, 0, len(found.matched), found.false, nothing, {}, dict(nothing), None, None, {}
        )
    probabilities = np.array([c.probabilities for c in matched], np.float64)
    said = {name: np.array([getattr(c, f"{name}_logits") for c in matched]).argmax(axis=1) for name in MEMBERS}
    said["fused"] = probabilities.argmax(axis=1)
    by_class = f1_by_class(labels, said["fused"])
    return ServiceFigures(
        cells=found.cells,
        matched=len(labels),
        not_counted=len(found.matched) - len(labels),
        false=found.false,
        macro_f1={name: _rounded(macro_f1(labels, s)) for name, s in said.items()},
        macro_f1_by_mix={
            mix: {name: _rounded(macro_f1(labels, s, shares)) for name, s in said.items()}
            for mix, shares in mixes_of(CLASS_NAMES).items()
        },
        accuracy={name: _rounded(np.mean(s == labels)) for name, s in said.items()},
        ece=_rounded(calibration_error(probabilities, labels)),
        ece_if_calibrated=_rounded(error_if_calibrated(probabilities)),
        f1_by_class={CLASS_NAMES[index]: _rounded(value) for index, value in by_class.items()},
    )


def _read_truth(path: Path) -> Mapping[str, _Truth]:
    if not path.is_file():
        raise AnnotationsUnreadable(f"{path.parent} has no {TRUTH}: name a folder that `morphbatch smears` wrote")
    fields: dict[str, _Truth] = {}
    for place, entry in read_json_lines(path, AnnotationsUnreadable):
        try:
            fields[entry["image"]] = _Truth(
                [cell["head_box"] for cell in entry["cells"]],
                [class_named(cell["class"]).index for cell in entry["cells"]],
                [bool(cell["whole"]) for cell in entry["cells"]],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise AnnotationsUnreadable(f"{place}: {error!r}") from error
    return fields


def _read_cells(engine: Engine, batch_key: int) -> dict[str, list[StoredCell]]:
    by_field: dict[str, list[StoredCell]] = {}
    with transaction(engine) as session:
        for cell in stored_cells(session, batch_key):
            by_field.setdefault(cell.field, []).append(cell)
    return by_field


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
