"""Recompute classes from the logits on record: another fusion of the same networks for old cells; no network is run.

Cells stay what they are; each slide gets another version of its analysis, under the new release, that counts from then
on. Those before stay on record.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Integer, case, column, func, literal, select, table, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from services.database.audit import AuditKind, record
from services.database.models import Analysis, Batch, Cell
from services.database.moves import begin_next, move
from services.database.queries import CURRENT_ANALYSIS
from services.database.session import transaction
from services.database.states import BatchMove, SlideMove, SlideState
from services.errors import PermanentError
from services.made_with import software
from services.releases.logits_on_record import Logits, read_logits, write_reapplied
from services.releases.queries import ResultsOfBatch, release_row, results_by_batch, results_under_others
from services.releases.recount import recount
from services.releases.schema import Release
from services.taxonomy import CLASS_NAMES, CLASSES

_CELLS_A_TRANSACTION = 100_000
_CELLS_AT_ONCE = 20_000  # in memory

_NEW_COLUMNS = ("analysis_id", "class_index", "confidence", "probabilities", "crop_inside_share", "not_counted")
_KEPT_COLUMNS = tuple(column.name for column in Cell.__table__.columns if column.name not in _NEW_COLUMNS)


class NotReapplicable(PermanentError):
    """The stored logits are of other networks, or there is no such release."""

    reason = "not_reapplicable"


@dataclass(frozen=True, slots=True)
class Reapplication:
    """What is to be recomputed: `results` that the networks of the releases `sources` gave."""

    release: Release
    sources: tuple[str, ...]
    results: tuple[ResultsOfBatch, ...]

    @property
    def batches(self) -> int:
        """Batches that they are of."""
        return len({result.batch_key for result in self.results})

    @property
    def slides(self) -> int:
        """Slides that get another analysis."""
        return sum(len(result.analyses) for result in self.results)

    @property
    def cells(self) -> int:
        """Cells of these slides."""
        return sum(sum(result.cells) for result in self.results)

    def probabilities(self, logits: Logits) -> NDArray[np.float32]:
        """Fused probabilities `[N, 18]` under the release."""
        by_member = {"efficientnetv2_s": logits.efficientnetv2_s, "resnetv2_50": logits.resnetv2_50}
        return self.release.fusion.probabilities(by_member)


def plan_reapplication(engine: Engine, release_id: str, since: date) -> Reapplication:
    """Find the slides received on or after `since` (UTC) whose result is of another release than `release_id`.

    Raises:
        NotReapplicable: `release_id` is not on record, or some of these cells were seen by other networks than its.
    """
    with transaction(engine) as session:
        release = _release(session, release_id)
        if release is None:
            raise NotReapplicable(f"no release {release_id} is on record: `morphbatch release publish` adds one")
        found = results_under_others(session, release_id, since)
        sources = tuple(sorted({result.release_id for result in found}))
        others = [source for source in sources if _networks(_release(session, source)) != _networks(release)]
    if others:
        slides = sum(len(result.analyses) for result in found if result.release_id in others)
        raise NotReapplicable(
            f"{slides} slides since {since} were analysed by other networks than {release_id} has (releases"
            f" {', '.join(others)}): only logits of the same ONNX files can be reused; nothing was changed."
            " Give a later --since, or analyse those slides again: `morphbatch requeue`"
        )
    return Reapplication(release, sources, tuple(found))


@dataclass(frozen=True, slots=True)
class ClassChange:
    """How many cells of a class there are on record and under the new fusion, and how many come and go."""

    class_code: str
    before: int
    after: int
    moved_in: int
    moved_out: int


def by_class(changes: NDArray[np.int64]) -> tuple[ClassChange, ...]:
    """What `count_changes` found, one entry per class."""
    before, after, same = changes.sum(axis=1), changes.sum(axis=0), changes.diagonal()
    return tuple(
        ClassChange(known.code, int(was), int(will), int(will - stays), int(was - stays))
        for known, was, will, stays in zip(CLASSES, before, after, same, strict=True)
    )


def count_changes(engine: Engine, plan: Reapplication, step: Callable[[int], None] | None = None) -> NDArray[np.int64]:
    """Cells `[18, 18]` by class on record (rows) and class under the new fusion (columns); nothing is written.

    `step` is called with the number of cells read, part by part.
    """
    changes = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    for group in _groups(plan.results):
        with transaction(engine) as session:
            for part in _parts(group):
                logits = read_logits(session, group[0].received_on, part)
                after = plan.probabilities(logits).argmax(axis=1)
                np.add.at(changes, (logits.class_index, after), 1)
                if step is not None:
                    step(len(logits.number))
    return changes


def write_reapplication(
    engine: Engine,
    plan: Reapplication,
    *,
    by: str,
    rewrite_reports: bool = False,
    step: Callable[[int], None] | None = None,
) -> int:
    """Write the new analyses, batch by batch, each whole or not at all; returns how many slides got one.

    A slide that was queued again since the plan was made is left out. `rewrite_reports`: the batches are closed again,
    which writes their files again. A second run finds nothing left to do.
    """
    written = 0
    for group in _groups(plan.results):
        with transaction(engine) as session:
            written += _write(session, plan, group, by, step)
            if rewrite_reports:
                of_group = Batch.id.in_([result.batch_key for result in group])
                move(session, BatchMove.REOPEN, of_group, close_at=func.now())
    return written


def _release(session: Session, release_id: str) -> Release | None:
    row = release_row(session, release_id)
    return None if row is None else row.release


def _networks(release: Release | None) -> object:
    """What must be equal for logits to be comparable."""
    if release is None:
        return None
    return release.classes, {name: release.files[member.onnx].sha256 for name, member in release.members.items()}


def _groups(results: Sequence[ResultsOfBatch]) -> Iterator[list[ResultsOfBatch]]:
    """Whole batches of one day, so many that a transaction is worth its while.

    A batch has results under several releases where another became active while it ran; they follow each other.
    """
    group: list[ResultsOfBatch] = []
    cells = 0
    for result in results:
        whole = group and result.batch_key != group[-1].batch_key
        if whole and (result.received_on != group[0].received_on or cells >= _CELLS_A_TRANSACTION):
            yield group
            group, cells = [], 0
        group.append(result)
        cells += sum(result.cells)
    if group:
        yield group


def _parts(group: Sequence[ResultsOfBatch]) -> Iterator[list[int]]:
    """The analyses of a group in parts that fit into memory, whatever a batch holds."""
    part: list[int] = []
    cells = 0
    for result in group:
        for analysis, here in zip(result.analyses, result.cells, strict=True):
            if part and cells + here > _CELLS_AT_ONCE:
                yield part
                part, cells = [], 0
            part.append(analysis)
            cells += here
    if part:
        yield part


def _write(
    session: Session, plan: Reapplication, group: list[ResultsOfBatch], by: str, step: Callable[[int], None] | None
) -> int:
    # No other version of these slides begins meanwhile.
    of_group = [result.batch_key for result in group]
    session.execute(select(Batch.id).where(Batch.id.in_(of_group)).order_by(Batch.id).with_for_update())
    day, analyses = group[0].received_on, [n for result in group for n in result.analyses]
    recount(session, plan.release, day, analyses)
    new = _insert_analyses(session, plan.release.id, analyses, by)
    for part in _parts(group):
        wanted = [analysis for analysis in part if analysis in new]
        logits = read_logits(session, day, wanted)
        _insert_cells(session, day, logits, np.array([new[n] for n in wanted]), wanted, plan.probabilities(logits))
        if step is not None:
            step(len(logits.number))
    _copy_field_results(session, list(new.values()))
    _note(session, plan.release.id, list(new.values()), by)
    return len(new)


_COPIED = (
    *(Analysis.attempts, Analysis.started_at, Analysis.finished_at),
    *(Analysis.cells_on_border, Analysis.objects_rejected, Analysis.timings),
)
_RECOUNTED = table(
    "recounted",
    *(column("analysis_id", Integer), column("cells_classified", Integer), column("not_counted_by_reason", JSONB)),
)


def _insert_analyses(session: Session, release_id: str, analyses: list[int], by: str) -> dict[int, int]:
    """The new analyses by the old ones, of the slides whose result is still that. They keep when the networks ran.

    A slide that is being analysed again is left out. One whose cells that count become fewer or more than were asked
    for falls short, or does no more.
    """
    new: dict[int, int] = {}
    counted, asked = _RECOUNTED.c.cells_classified, Analysis.made_with["settings"]["minimum_cells"].as_integer()
    short = func.coalesce(counted < asked, Analysis.state == SlideState.INSUFFICIENT)
    fewer = (counted < asked) & (counted != Analysis.cells_classified)
    detail = func.concat(counted, " cells are counted under release ", release_id, ", at least ", asked, " required")
    under_way = select(Analysis.slide_key).where(Analysis.state.in_([SlideState.QUEUED, SlideState.RUNNING]))
    for step in (SlideMove.REAPPLY, SlideMove.REAPPLY_SHORT):
        rows = select(
            Analysis.slide_key,
            literal(release_id).label("release_id"),
            Analysis.id.label("fused_from"),
            literal(by).label("asked_by"),
            literal("the fusion of this release was applied to the stored logits").label("why"),
            Analysis.made_with.concat({"software": software()}).label("made_with"),
            case((fewer, "too_few_cells"), (short, Analysis.reason)).label("reason"),
            case((fewer, detail), (short, Analysis.detail)).label("detail"),
            counted,
            _RECOUNTED.c.not_counted_by_reason,
            *_COPIED,
        ).where(
            Analysis.id.in_(analyses),
            Analysis.id == _RECOUNTED.c.analysis_id,
            short == (step is SlideMove.REAPPLY_SHORT),
            Analysis.id.in_(select(CURRENT_ANALYSIS.c.analysis_id)),
            Analysis.slide_key.not_in(under_way),
        )
        for written in begin_next(session, step, rows):
            assert written.fused_from is not None  # noqa: S101 - it is one of the columns above
            new[written.fused_from] = written.id
    return new


def _insert_cells(
    session: Session,
    day: date,
    logits: Logits,
    new: NDArray[np.int64],
    old: list[int],
    probabilities: NDArray[np.float32],
) -> None:
    order = np.argsort(old)
    of_cell = new[order][np.searchsorted(np.array(old)[order], logits.analysis_id)]
    write_reapplied(session, logits, of_cell, probabilities)
    kept = ", ".join(_KEPT_COLUMNS)
    session.execute(
        text(
            f"insert into cell ({', '.join(_NEW_COLUMNS)}, {kept})"
            f" select reapplied.new_id, reapplied.class_index, reapplied.confidence, reapplied.probabilities,"
            " coalesce(cell.crop_inside_share, uncounted.crop_inside_share), uncounted.not_counted,"
            f" {', '.join(f'cell.{name}' for name in _KEPT_COLUMNS)}"
            " from reapplied join cell on cell.analysis_id = reapplied.analysis_id and cell.number = reapplied.number"
            " left join uncounted on uncounted.analysis_id = cell.analysis_id and uncounted.number = cell.number"
            # Else the whole month is read for each part of it.
            " where cell.received_on = :day and cell.analysis_id = any(:ids)"
        ),
        {"day": day, "ids": old},
    )
    session.execute(
        text(
            "insert into slide_class_count (analysis_id, class_index, cells)"
            " select new_id, class_index, count(*) from reapplied left join uncounted using (analysis_id, number)"
            " where uncounted.number is null group by 1, 2"
        )
    )


def _copy_field_results(session: Session, new: list[int]) -> None:
    columns = "field_id, width_px, height_px, cells, on_border, reason, detail, quality, rejected, signature"
    session.execute(
        text(
            f"insert into field_result (analysis_id, {columns})"
            f" select a.id, {', '.join(f'f.{name}' for name in columns.split(', '))}"
            " from analysis a join field_result f on f.analysis_id = a.fused_from where a.id = any(:ids)"
        ),
        {"ids": new},
    )


def _note(session: Session, release_id: str, new: list[int], by: str) -> None:
    for found in results_by_batch(session, new):
        what = {"release": release_id, "by": by, "slides": len(found.analyses), "cells": sum(found.cells)}
        record(session, AuditKind.SLIDES_FUSED_ANEW, batch_key=found.batch_key, **what)
