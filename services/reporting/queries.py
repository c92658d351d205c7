"""What the reports of a batch ask the database: views of the schema `reporting`, rows as frozen dataclasses."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.database.queries import read_rows
from services.errors import PermanentError
from services.imaging.types import Box, Microns, Pixels, RejectedObject, RejectReason, UmPerPx
from services.releases.schema import Fusion

FETCH_ROWS: Final = 2_000

_T = TypeVar("_T")


class NoSuchBatch(PermanentError):
    """The database has no batch of that key."""

    reason = "unknown_batch"


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch and the sums over its slides."""

    batch_key: int
    lab: str
    batch_id: str
    state: str
    received_on: date
    received_at: datetime
    time_zone: str
    night: date
    slides: int
    fields: int
    fields_used: int
    cells: int
    cells_not_counted: int
    on_border: int
    objects_rejected: int
    seconds: float | None
    release_ids: list[str] | None
    problems: list[dict[str, str]]
    voided_at: datetime | None
    voided_by: str | None
    void_why: str | None
    lab_tests: bool


@dataclass(frozen=True, slots=True)
class SharedRow:
    """How many images of a slide the lab had sent before in one other slide."""

    slide_id: str
    specimen: str
    fields: int
    first_batch_key: int
    first_batch_id: str
    first_slide_id: str
    first_specimen: str


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release; its weight is one number, or `fusion_alpha_by_class`."""

    release_id: str
    kind: str
    fusion_alpha: float | None
    fusion_alpha_by_class: list[float] | None
    crop_px: Pixels
    crop_um: Microns
    minimum_crop_inside_share: float | None
    git_commit: str | None


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide with the analysis that counts; without one, it is queued and `release_id` is `None`."""

    slide_id: str
    specimen: str
    replicate: Literal[1, 2]
    stain: str
    um_per_px: UmPerPx
    collected_at: datetime | None
    day: date
    order_number: str | None
    accession_number: str | None
    sample_type: str | None
    stain_lot: str | None
    state: str
    reason: str | None
    detail: str | None
    release_id: str | None
    release_kind: str | None
    cells: int
    not_counted_by_reason: dict[str, int]
    on_border: int
    objects_rejected: int
    fields: int
    fields_used: int
    fewer_than_200_cells: bool | None
    attempts: int
    timings: dict[str, float | dict[str, float]]
    later_version: int | None
    later_state: str | None
    later_reason: str | None
    later_detail: str | None


@dataclass(frozen=True, slots=True)
class AnalysisRow:
    """The analysis that counts of a slide: who asked for it and what it was made with."""

    slide_id: str
    version: int
    queued_at: datetime
    asked_by: str | None
    why: str | None
    software: str | None
    detector: str | None
    form: str | None
    settings: dict[str, float] | None
    made_with_sha256: str | None


@dataclass(frozen=True, slots=True)
class ConfidenceRow:
    """How sure the networks are of a slide's cells, %."""

    slide_id: str
    mean_confidence_pct: float
    low_confidence_pct: float


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """One measure over the cells of a slide, in its unit."""

    slide_id: str
    measure: str
    unit: str
    cells_measured: int
    median: float | None
    p05: float | None
    p95: float | None
    who_low: float | None
    who_high: float | None
    who_stain: str | None
    within_who_pct: float | None


@dataclass(frozen=True, slots=True)
class RemarkedField:
    """A field that was set aside for a `reason`, or used with `flags`."""

    slide_id: str
    field: str
    reason: str | None
    detail: str | None
    flags: list[str]


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that was done to the batch, as the audit has it."""

    at: datetime
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnalysedField:
    """A field of an analysed slide, for its pictures. It has no size where its bytes were never decoded."""

    field_key: int
    key: str
    sha256: str
    is_crop: bool
    width_px: Pixels | None
    height_px: Pixels | None
    reason: str | None
    rejected: tuple[RejectedObject, ...]


def batch_row(session: Session, batch_key: int) -> BatchRow:
    """The batch.

    Raises:
        NoSuchBatch: there is none.
    """
    found = read_rows(
        session,
        BatchRow,
        "select o.batch_key, o.lab, o.batch_id, o.state, o.received_on, o.received_at, o.slides, o.fields,"
        " o.fields_used, o.cells, o.cells_not_counted, o.on_border, o.objects_rejected, o.seconds, o.release_ids,"
        " b.problems, l.time_zone, reporting.night_of(b.received_at, l.time_zone) as night,"
        " o.voided_at, o.voided_by, o.void_why, l.tests as lab_tests"
        " from reporting.batch_overview o join batch b on b.id = o.batch_key join lab l on l.id = b.lab_id"
        " where o.batch_key = :key",
        key=batch_key,
    )
    if not found:
        raise NoSuchBatch(f"no batch has the key {batch_key}")
    return found[0]


def release_rows(session: Session, release_ids: list[str]) -> list[ReleaseRow]:
    """These releases, the latest first."""
    return read_rows(
        session,
        ReleaseRow,
        "select release_id, kind, fusion_alpha, fusion_alpha_by_class, crop_px, crop_um, minimum_crop_inside_share,"
        " git_commit from reporting.release where release_id = any(:ids) order by created_at desc, release_id",
        ids=release_ids,
    )


def slide_rows(session: Session, batch: BatchRow) -> list[SlideRow]:
    """The slides of a batch in the order of its manifest."""
    return _rows_of(
        session,
        SlideRow,
        batch,
        "select slide_id, specimen, replicate, stain, um_per_px, collected_at, day, order_number,"
        " accession_number, sample_type, stain_lot, state, reason, detail, release_id,"
        " release_kind, cells, not_counted_by_reason, on_border, objects_rejected, fields, fields_used,"
        " fewer_than_200_cells, attempts, timings, later_version, later_state, later_reason, later_detail"
        " from reporting.slide_result"
        " join (select slide_key, collected_at, day, order_number, accession_number, sample_type, stain_lot"
        "  from reporting.slide_day) d using (slide_key)",
        "position",
    )


def analysis_rows(session: Session, batch: BatchRow) -> list[AnalysisRow]:
    """One row per slide that has an analysis."""
    return _rows_of(
        session,
        AnalysisRow,
        batch,
        "select slide_id, version, queued_at, asked_by, why, software, detector, form, settings, made_with_sha256"
        " from (select h.* from reporting.analysis_history h join reporting.current_analysis using (analysis_id)) h",
        "slide_id",
    )


def class_counts(session: Session, batch: BatchRow) -> Mapping[str, Counter[int]]:
    """Cells by slide_id and class index."""
    return _counts(session, batch, "reporting.class_distribution")


def fusions(session: Session, release_ids: list[str]) -> Mapping[str, Fusion]:
    """How each of these releases joins its networks, by its id; of one that does not say it, nothing."""
    rows = session.execute(
        text("select id, document -> 'fusion' as fusion from model_release where id = any(:ids)"), {"ids": release_ids}
    )
    return {row.id: Fusion.model_validate(row.fusion) for row in rows if row.fusion is not None}


@dataclass(frozen=True, slots=True)
class SlideProbabilities:
    """Fused probabilities `[N, 18]` of a slide's cells that count; `repeated` `[N]`: its specimen has them before."""

    of_cells: NDArray[np.float32]
    repeated: NDArray[np.bool_]


def probabilities_by_slide(session: Session, batch: BatchRow) -> Mapping[str, SlideProbabilities]:
    """Those of each slide that has cells that count, by slide_id."""
    repeated = {
        row.slide_id: frozenset(row.field_keys)
        for row in session.execute(
            text(f"select slide_id, field_keys from reporting.repeated_fields where {_OF_BATCH}"), _key(batch)
        )
    }
    cells: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    again: dict[str, list[bool]] = defaultdict(list)
    columns = "slide_id, field_key, probabilities"
    for rows in stream_cells(session, columns, batch.batch_key, batch.received_on, counted_only=True):
        for slide_id, group in groupby(rows, key=lambda row: row.slide_id):
            part = list(group)
            cells[slide_id].append(np.array([row.probabilities for row in part], np.float32))
            again[slide_id] += [row.field_key in repeated.get(slide_id, ()) for row in part]
    return {
        slide_id: SlideProbabilities(np.concatenate(parts), np.array(again[slide_id]))
        for slide_id, parts in cells.items()
    }


def counts_before(session: Session, batch: BatchRow) -> Mapping[str, Counter[int]]:
    """Cells by slide_id and class index, of images that an earlier slide of the specimen has too."""
    return _counts(session, batch, "reporting.counted_before")


def _counts(session: Session, batch: BatchRow, view: str) -> Mapping[str, Counter[int]]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for row in session.execute(text(f"select slide_id, class_index, cells from {view} where {_OF_BATCH}"), _key(batch)):
        counts[row.slide_id][row.class_index] = row.cells
    return counts


def shared_rows(session: Session, batch: BatchRow) -> list[SharedRow]:
    """The slides of the batch with images that the lab had sent before."""
    return _rows_of(
        session,
        SharedRow,
        batch,
        "select slide_id, specimen, fields, first_batch_key, first_batch_id, first_slide_id, first_specimen from"
        " (select batch_key, received_on, slide_id, specimen, count(*) as fields, first_batch_key, first_batch_id,"
        "   first_slide_id, first_specimen"
        "  from reporting.shared_field group by 1, 2, 3, 4, 6, 7, 8, 9) shared",
        "slide_id, first_batch_key, first_slide_id",
    )


def images_of_another_specimen(session: Session, batch_key: int) -> dict[str, int]:
    """By slide_id how many of its images a slide of another specimen has too, of the batch or of an earlier one."""
    rows = session.execute(
        text(
            "select slide_id, count(distinct field_key) from reporting.same_image where batch_key = :batch"
            " and other_specimen <> specimen and (other_batch_key = batch_key or other_field_key < field_key)"
            " group by slide_id order by slide_id"
        ),
        {"batch": batch_key},
    )
    return dict(rows.all())


def confidence_rows(session: Session, batch: BatchRow) -> list[ConfidenceRow]:
    """One row per slide with classified cells."""
    return _rows_of(
        session,
        ConfidenceRow,
        batch,
        "select slide_id, mean_confidence_pct, low_confidence_pct from reporting.confidence_by_slide",
        "slide_id",
    )


def measure_rows(session: Session, batch: BatchRow) -> list[MeasureRow]:
    """One row per slide with classified cells and measure; the measures in their own order."""
    return _rows_of(
        session,
        MeasureRow,
        batch,
        "select slide_id, measure, v.unit, cells_measured, median, p05, p95, v.who_low, v.who_high, v.who_stain,"
        " within_who_pct"
        " from reporting.morphometry_by_slide v join reporting.measure m using (measure)",
        "slide_id, m.position",
    )


def remarked_fields(session: Session, batch: BatchRow) -> list[RemarkedField]:
    """The fields about which the report has something to say, in the order of the manifest."""
    return _rows_of(
        session,
        RemarkedField,
        batch,
        "select slide_id, field, reason, detail, flags from"
        " (select * from reporting.quality_by_field where reason is not null or flags <> '{}') remarked",
        "slide_id, field_position",
    )


def events(session: Session, batch_key: int) -> list[EventRow]:
    """What the audit has of the batch, in this order."""
    return read_rows(
        session, EventRow, "select at, kind, detail from audit_event where batch_id = :key order by id", key=batch_key
    )


def slides_of_images_sent_before(session: Session, batch_key: int) -> list[str]:
    """The slides of a batch with images that the lab had sent before, in another slide."""
    found = session.scalars(
        text("select distinct slide_id from reporting.shared_field where batch_key = :batch order by slide_id"),
        {"batch": batch_key},
    )
    return list(found)


def slides_of_doubtful_scale(session: Session, batch_key: int) -> list[str]:
    """The slides of a batch whose `um_per_px` is doubted, in any of their fields."""
    found = session.scalars(
        text(
            "select distinct slide_id from reporting.quality_by_field where batch_key = :batch"
            " and (reason like 'field_um_per_px%' or array_to_string(flags, ' ') like '%um_per_px%')"
            " order by slide_id"
        ),
        {"batch": batch_key},
    )
    return list(found)


def analysed_fields(session: Session, batch_key: int, slide_id: str) -> list[AnalysedField]:
    """The fields of a slide in the order of its manifest; none where it was not analysed."""
    rows = session.execute(
        text(
            "select f.id as field_key, f.key, f.sha256, f.kind = 'crop' as is_crop, r.width_px, r.height_px, r.reason,"
            " r.rejected from reporting.slide_result s join field_result r on r.analysis_id = s.analysis_id"
            " join field f on f.id = r.field_id"
            " where s.batch_key = :key and s.slide_id = :slide order by f.position"
        ),
        {"key": batch_key, "slide": slide_id},
    ).mappings()
    return [AnalysedField(**{**row, "rejected": _rejected(row["rejected"])}) for row in rows]


def _rejected(document: list[dict[str, Any]]) -> tuple[RejectedObject, ...]:
    return tuple(RejectedObject(Box(*found["box"]), RejectReason(found["reason"])) for found in document)


def stream_cells(
    session: Session,
    columns: str,
    batch_key: int,
    day: date,
    *,
    slide_id: str | None = None,
    field_keys: list[int] | None = None,
    counted_only: bool = False,
    order: str = "analysis_id, number",
) -> Iterator[list[Row[Any]]]:
    """The cells of a batch, or of one slide or some fields of it, in lists of at most 2,000 rows.

    `counted_only` leaves out those that do not count. A cursor on the server holds the rest: memory does not grow with
    the batch.
    """
    wanted = ["batch_key = :key", "received_on = :day"]
    wanted += ["slide_id = :slide"] if slide_id is not None else []
    wanted += ["field_key = any(:fields)"] if field_keys is not None else []
    wanted += ["not_counted is null"] if counted_only else []
    result = session.execute(
        text(f"select {columns} from reporting.cell where {' and '.join(wanted)} order by {order}"),
        {"key": batch_key, "day": day, "slide": slide_id, "fields": field_keys},
        execution_options={"stream_results": True, "max_row_buffer": FETCH_ROWS},
    )
    for part in result.partitions(FETCH_ROWS):  # named: without it a text statement comes as one part
        yield list(part)


# With the day, only that month's partition of the cells is read.
_OF_BATCH: Final = "batch_key = :key and received_on = :day"


def _key(batch: BatchRow) -> dict[str, object]:
    return {"key": batch.batch_key, "day": batch.received_on}


def _rows_of(session: Session, row_type: type[_T], batch: BatchRow, select: str, order: str) -> list[_T]:
    return read_rows(session, row_type, f"{select} where {_OF_BATCH} order by {order}", **_key(batch))
