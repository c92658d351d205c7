"""One slide from claim to commit: what the worker's task calls."""

import json
import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from services import metrics
from services.analysis.field_rows import FieldRows
from services.analysis.fields import PreparedField, StageClock
from services.analysis.leases import (
    Lease,
    LeaseLost,
    RetryPolicy,
    claim,
    give_back,
    through_outages,
)
from services.analysis.pipeline import Classifier, FoundCell, run_slide
from services.analysis.queries import SlideWork, load_work
from services.analysis.rows import CopySpool
from services.database.audit import AuditKind, record
from services.database.models import Batch
from services.database.queries import NO_SLIDE_IS_OPEN
from services.database.session import transaction
from services.database.states import BatchState, SlideMove
from services.errors import NOT_THE_WORKS_FAULT, MorphbatchError, OutageError, PermanentError
from services.fields import FieldLimits
from services.imaging.types import Morphometry, NotCounted
from services.inference.predictions import Predictions
from services.log_context import bind
from services.made_with import made_with
from services.releases.activation import require_same_crops
from services.releases.counting import why_not_counted
from services.settings import Settings
from services.storage import ObjectStore
from services.tracing import tell, tell_stages, traced

log = logging.getLogger(__name__)

_MEASURES = tuple(Morphometry.__dataclass_fields__)
_OF_THE_HEAD = {"length_um", "width_um", "area_um2", "perimeter_um"}
_MEASURE_COLUMNS = tuple(f"head_{name}" if name in _OF_THE_HEAD else name for name in _MEASURES)
_CELL_COLUMNS = (
    *("received_on", "analysis_id", "number", "field_id", "x0", "y0", "x1", "y1", "class_index", "confidence"),
    *("probabilities", "efficientnetv2_s_logits", "resnetv2_50_logits", "head_outline"),
    *_MEASURE_COLUMNS,
    *("crop_inside_share", "not_counted"),
)


class ReleaseNotServed(OutageError):
    """Triton serves another release than the slide was queued for.

    It waits until Triton serves its own, or until it is moved to the release that is active now.
    """

    reason = "release_not_served"


class SlideResult:
    """Gathers the rows of a slide; the pipeline's sink."""

    def __init__(self, slide: SlideWork, lease: Lease) -> None:
        self._slide = slide
        self._lease = lease
        self._cells = CopySpool("cell", _CELL_COLUMNS)
        self._fields = FieldRows(slide)
        # Of each field, by why they do not count and by class.
        self._of_field: dict[int, Counter[tuple[NotCounted | None, int]]] = defaultdict(Counter)

    @property
    def classified(self) -> int:
        """Cells with a class so far."""
        return self._cells.rows

    @property
    def on_border(self) -> int:
        """Heads that a field's border cuts."""
        return self._fields.on_border

    @property
    def rejected(self) -> int:
        """Objects that are no heads."""
        return self._fields.rejected

    @property
    def counts(self) -> Counter[int]:
        """By class, the cells that the shares are of."""
        return Counter({index: cells for (why_not, index), cells in self._joined().items() if why_not is None})

    @property
    def not_counted(self) -> Counter[NotCounted]:
        """The others, by why they are not counted."""
        others = Counter[NotCounted]()
        for (why_not, _), cells in self._joined().items():
            if why_not is not None:
                others[why_not] += cells
        return others

    @property
    def counted(self) -> int:
        """Cells that the shares are of."""
        return self.counts.total()

    def check(self) -> None:
        """Stop the pipeline once the lease is lost."""
        self._lease.check()

    def add_field(self, prepared: PreparedField) -> None:
        """Note what was found of a field."""
        self._fields.add(prepared)

    def add_cell(self, cell: FoundCell, predictions: Predictions, row: int) -> None:
        """Note a classified cell."""
        head, inside = cell.head, cell.crop_inside_share
        probabilities = predictions.probabilities[row]
        index = int(np.argmax(probabilities))
        why_not = why_not_counted(head.not_counted, inside, self._slide.minimum_crop_inside_share)
        self._of_field[cell.field_id][why_not, index] += 1
        outline = None if head.outline is None else head.outline.astype("<u2").tobytes()
        self._cells.add(
            (
                *(self._slide.received_on, self._slide.analysis_id, self._cells.rows + 1, cell.field_id),
                *head.box,
                *(index, float(probabilities[index]), probabilities),
                *(predictions.efficientnetv2_s_logits[row], predictions.resnetv2_50_logits[row], outline),
                *(getattr(head.measures, name) for name in _MEASURES),
                *(inside, why_not),
            )
        )

    def judge_scale(self) -> None:
        """Once all fields are in: take out those that are not at the slide's scale, with their cells."""
        if left_out := self._fields.judge_scale():
            self._cells = self._cells.without("field_id", left_out, number="number")
            for field_id in left_out:
                self._of_field.pop(field_id, None)

    def _joined(self) -> Counter[tuple[NotCounted | None, int]]:
        return sum(self._of_field.values(), Counter())

    def write(self, session: Session, *, with_cells: bool) -> None:
        """Write these rows, once and for all: the analysis ends in the same transaction."""
        self._fields.write(session)
        if not with_cells or not self.classified:
            return
        self._cells.write(session)
        if counts := self.counts:
            session.execute(
                text("insert into slide_class_count (analysis_id, class_index, cells) values (:id, :index, :cells)"),
                [
                    {"id": self._slide.analysis_id, "index": index, "cells": cells}
                    for index, cells in sorted(counts.items())
                ],
            )

    def close(self) -> None:
        """Drop the spooled rows."""
        self._cells.close()


@dataclass(frozen=True, slots=True)
class Attempted:
    """What became of an attempt. Without a `step` there was nothing to do, or another worker took the slide over."""

    step: SlideMove | None = None
    closing: int | None = None
    """The key of the slide's batch, if this was its last open slide."""


def analyse_slide(
    engine: Engine, store: ObjectStore, networks: Classifier, settings: Settings, analysis_id: int | None = None
) -> Attempted:
    """Analyse the slide that comes next, or the one that is named if it is queued.

    Every outcome is in the database when this returns: while Postgres takes no writes, it waits. It takes the place of
    a slide that could be worked at, but none could be without Postgres.

    Raises:
        OutageError, ConfigurationError: the slide could not be claimed for so long that the sweep publishes it again.
    """
    policy = RetryPolicy(settings.retry_base_seconds, settings.retry_cap_seconds, settings.outage_delay_seconds)
    lease = through_outages(
        partial(claim, engine, settings.lease_seconds, analysis_id), policy, settings.republish_seconds
    )
    if lease is None:
        log.info("nothing to do: no slide may be started now, or others took them")
        return Attempted()
    bind(analysis=lease.analysis_id, attempt=lease.attempt)
    with lease:
        try:
            return _attempt(engine, store, networks, lease, settings)
        except LeaseLost as error:
            return _lost(error)
        except Exception as error:
            # Anything unforeseen, MemoryError among it, counts as an attempt: a slide that breaks its worker each time
            # ends in quarantine with the reason, not in a loop.
            if not isinstance(error, MorphbatchError):
                log.error("analysis %d: attempt %d failed", lease.analysis_id, lease.attempt, exc_info=error)
            try:
                # As long as the lease may be ours: another worker's claim ends the waiting by `LeaseLost`.
                return through_outages(partial(_record_failure, engine, lease, error, settings, policy), policy)
            except LeaseLost as lost:
                return _lost(lost)


def _lost(error: LeaseLost) -> Attempted:
    metrics.ATTEMPTS.labels(error.reason).inc()
    log.warning("%s", error)
    return Attempted()


def _record_failure(
    engine: Engine, lease: Lease, error: Exception, settings: Settings, policy: RetryPolicy
) -> Attempted:
    if isinstance(error, PermanentError):
        return _quarantine(engine, lease, error.reason, str(error), settings)
    reason = error.reason if isinstance(error, MorphbatchError) else f"unexpected_{type(error).__name__}"
    if lease.attempt >= settings.max_attempts and not isinstance(error, NOT_THE_WORKS_FAULT):
        detail = f"gave up after {lease.attempt} attempts; last error: {error}"
        return _quarantine(engine, lease, reason, detail, settings)
    with transaction(engine) as session:
        give_back(session, lease, error, reason, policy)
    metrics.ATTEMPTS.labels("given_back").inc()
    metrics.SLIDES_GIVEN_BACK.labels(reason).inc()
    log.warning("analysis %d: attempt %d: %s: %s; tried again later", lease.analysis_id, lease.attempt, reason, error)
    return Attempted(SlideMove.GIVE_BACK)


def _attempt(
    engine: Engine,
    store: ObjectStore,
    networks: Classifier,
    lease: Lease,
    settings: Settings,
) -> Attempted:
    clock = StageClock()
    with transaction(engine) as session:
        slide = load_work(session, lease.analysis_id)
    bind(batch=f"{slide.lab}/{slide.batch_id}", slide=slide.slide_id, release=slide.release_id)
    about: dict[str, str | int] = {"slide": slide.slide_id, "analysis": lease.analysis_id, "attempt": lease.attempt}
    with traced("slide", slide.lab, slide.batch_id, release=slide.release_id, **about):
        try:
            return _analysed(engine, store, networks, lease, settings, slide, clock)
        finally:
            tell_stages(clock.spans, clock.seconds)


def _analysed(
    engine: Engine,
    store: ObjectStore,
    networks: Classifier,
    lease: Lease,
    settings: Settings,
    slide: SlideWork,
    clock: StageClock,
) -> Attempted:
    if lease.attempt > settings.max_attempts:
        raise _Exhausted(
            f"{slide}: its worker died {settings.max_attempts} times while analysing it; check its fields before"
            " requeueing it"
        )
    served = networks.served_release()
    if slide.release_id != served.release_id:
        raise ReleaseNotServed(
            f"{slide}: queued for release {slide.release_id}, Triton serves {served.release_id}: restart Triton,"
            " unless a switch is under way"
        )
    require_same_crops(served, slide.crop_px, slide.crop_um)
    result = SlideResult(slide, lease)
    try:
        limits = FieldLimits.of(settings)
        faults = run_slide(slide, store, networks, result, limits, clock)
        result.judge_scale()
        verdict, reason, detail = _verdict(slide, result, faults, settings.minimum_cells)
        good = verdict is not SlideMove.QUARANTINE
        with transaction(engine) as session:
            lease.end(
                session,
                verdict,
                reason=reason,
                detail=detail,
                cells_classified=result.counted if good else 0,
                not_counted_by_reason=dict(result.not_counted) if good else {},
                cells_on_border=result.on_border,
                objects_rejected=result.rejected,
                made_with=made_with(settings, served.form),
            )
            clock.timed("write", partial(result.write, session, with_cells=good))
            seconds = time.perf_counter() - clock.began
            session.execute(
                text("update analysis set timings = :timings where id = :id"),
                {"timings": json.dumps(_timings(clock, seconds)), "id": lease.analysis_id},
            )
            if not good:
                _audit_quarantine(session, slide, reason, detail)
            last_of = _batch_if_last(session, slide.batch_key, settings.republish_seconds)
        _count(verdict, reason)
        metrics.CELLS.inc(result.classified if good else 0)
        metrics.SLIDE_SECONDS.observe(seconds)
        for stage, spent in clock.seconds.items():
            metrics.STAGE_SECONDS.labels(stage).observe(spent)
        tell(state=verdict.to, cells=result.classified)
        log.info("%s: %s, %d cells in %.1f s", slide, verdict.to, result.classified, seconds)
        return Attempted(verdict, last_of)
    finally:
        result.close()


def _count(verdict: SlideMove, reason: str | None) -> None:
    """Count an ended slide, after the commit."""
    metrics.ATTEMPTS.labels(verdict.to).inc()
    if verdict is SlideMove.QUARANTINE:
        metrics.SLIDES_QUARANTINED.labels(reason).inc()


def _timings(clock: StageClock, total: float) -> dict[str, object]:
    """Seconds by stage. Stages overlap, so that their sum may exceed the total; `cpu` is processor time by stage."""
    return {**_rounded(clock.seconds), "total": round(total, 3), "cpu": _rounded(clock.cpu)}


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


class _Exhausted(PermanentError):
    reason = "too_many_attempts"


def _verdict(
    slide: SlideWork, result: SlideResult, faults: list[PermanentError], minimum_cells: int
) -> tuple[SlideMove, str | None, str | None]:
    if faults:
        return SlideMove.QUARANTINE, faults[0].reason, "\n".join(map(str, faults[:50]))
    if result.counted < minimum_cells:
        detail = f"{slide}: {result.counted} cells in {len(slide.fields)} fields, at least {minimum_cells} required"
        if result.not_counted:
            more = ", ".join(f"{cells} {why.replace('_', ' ')}" for why, cells in sorted(result.not_counted.items()))
            detail += f"; not counted: {more}"
        return SlideMove.FALL_SHORT, "too_few_cells", detail
    return SlideMove.FINISH, None, None


def _quarantine(engine: Engine, lease: Lease, reason: str, detail: str, settings: Settings) -> Attempted:
    with transaction(engine) as session:
        slide = load_work(session, lease.analysis_id)
        made = made_with(settings, None)
        lease.end(session, SlideMove.QUARANTINE, reason=reason, detail=detail[:4000], made_with=made)
        _audit_quarantine(session, slide, reason, detail)
        closing = _batch_if_last(session, slide.batch_key, settings.republish_seconds)
    _count(SlideMove.QUARANTINE, reason)
    return Attempted(SlideMove.QUARANTINE, closing)


def _audit_quarantine(session: Session, slide: SlideWork, reason: str | None, detail: str | None) -> None:
    what = {"slide": slide.slide_id, "reason": reason, "detail": (detail or "")[:2000]}
    record(session, AuditKind.SLIDE_QUARANTINED, batch_key=slide.batch_key, **what)


def _batch_if_last(session: Session, batch_key: int, republish_s: int) -> int | None:
    """The batch's key if no slide of it is open any more; the row lock makes two that end at once take turns."""
    session.flush()
    session.execute(select(Batch.id).where(Batch.id == batch_key).with_for_update())
    return session.scalar(
        update(Batch)
        .where(Batch.id == batch_key, Batch.state == BatchState.ANALYSING, NO_SLIDE_IS_OPEN)
        .values(close_at=func.now() + timedelta(seconds=republish_s))
        .returning(Batch.id),
        execution_options={"synchronize_session": False},
    )
