"""slides.csv and cells.parquet: the same results for spreadsheets and for data frames."""

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.reporting.references import LOWER_LIMIT_NORMAL_PCT, MEASURES
from services.taxonomy import CLASS_NAMES

FETCH_ROWS: Final = 2_000
ROWS_A_GROUP: Final = 20_000

_REGIONS: Final = ("normal", "head", "neck", "tail")
_FACTS: Final = (
    *("slide_id", "specimen", "replicate", "stain", "um_per_px", "state", "reason"),
    *("release_id", "release_kind", "cells"),
)
_SUMMARIES: Final = ("median", "p05", "p95")
SLIDE_COLUMNS: Final[tuple[str, ...]] = (
    "warning",
    "lab",
    "batch",
    *_FACTS,
    *("on_border", "objects_rejected", "fields", "fields_used", "fields_set_aside"),
    *("normal_cells", "normal_pct", "normal_low_pct", "normal_high_pct", "normal_reference_limit_pct"),
    *(f"{region}_region_pct" for region in _REGIONS[1:]),
    *("mean_confidence_pct", "low_confidence_pct"),
    *(f"{name}_{what}" for name in CLASS_NAMES for what in ("cells", "pct", "low_pct", "high_pct")),
    *(f"{m.column}_{summary}" for m in MEASURES for summary in _SUMMARIES),
    *("quality_flags", "seconds_total"),
)

_NAMED: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("lab", pa.dictionary(pa.int32(), pa.string())),
    ("batch_id", pa.dictionary(pa.int32(), pa.string())),
    ("received_on", pa.date32()),
    ("slide_id", pa.dictionary(pa.int32(), pa.string())),
    ("specimen", pa.dictionary(pa.int32(), pa.string())),
    ("replicate", pa.int8()),
    ("stain", pa.dictionary(pa.int32(), pa.string())),
    ("um_per_px", pa.float64()),
    ("release_id", pa.dictionary(pa.int32(), pa.string())),
    ("release_kind", pa.dictionary(pa.int32(), pa.string())),
    ("field", pa.dictionary(pa.int32(), pa.string())),
    ("number", pa.int32()),
    *((name, pa.int32()) for name in ("x0", "y0", "x1", "y1")),
    ("class_index", pa.int8()),
    ("class_name", pa.dictionary(pa.int32(), pa.string())),
    ("region", pa.dictionary(pa.int32(), pa.string())),
    ("confidence", pa.float32()),
    *((m.column, pa.float32()) for m in MEASURES),
)
_LOGITS: Final = ("efficientnetv2_s_logits", "resnetv2_50_logits")
CELL_SCHEMA: Final = pa.schema(
    [
        *_NAMED,
        *((f"p_{name}", pa.float32()) for name in CLASS_NAMES),
        *((name, pa.list_(pa.float32(), len(CLASS_NAMES))) for name in _LOGITS),
        ("head_outline_px", pa.list_(pa.uint16())),
    ]
)


def write_slides_csv(report: dict[str, Any], path: Path) -> None:
    """Write one row a slide of the report; a slide without a result has empty cells where the result would be."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, SLIDE_COLUMNS, lineterminator="\r\n")
        rows.writeheader()
        rows.writerows(_slide_row(report, slide) for slide in report["slides"])


def _slide_row(report: dict[str, Any], slide: dict[str, Any]) -> dict[str, Any]:
    normal, confidence = slide["normal_forms"] or {}, slide["confidence"] or {}
    row = {
        "warning": report.get("warning"),
        "lab": report["lab"],
        "batch": report["batch"],
        **{name: slide[name] for name in (*_FACTS, "on_border", "objects_rejected")},
        "fields": slide["fields"]["given"],
        "fields_used": slide["fields"]["used"],
        "fields_set_aside": len(slide["fields"]["set_aside"]),
        **{f"normal_{what}": normal.get(what) for what in ("cells", "pct", "low_pct", "high_pct")},
        "normal_reference_limit_pct": LOWER_LIMIT_NORMAL_PCT,
        **{f"{name}_region_pct": (slide["regions"] or {}).get(name, {}).get("pct") for name in _REGIONS[1:]},
        "mean_confidence_pct": confidence.get("mean_pct"),
        "low_confidence_pct": confidence.get("low_share_pct"),
        "quality_flags": ";".join(slide["quality_flags"]),
        "seconds_total": slide["seconds"].get("total"),
    }
    for share in slide["distribution"] or ():
        row |= {f"{share['class']}_{what}": share[what] for what in ("cells", "pct", "low_pct", "high_pct")}
    for measure in slide["morphometry"] or ():
        row |= {f"{measure['measure']}_{summary}": measure[summary] for summary in _SUMMARIES}
    return row


def stream_cells(
    session: Session,
    columns: str,
    batch_key: int,
    day: date,
    *,
    slide_id: str | None = None,
    field_keys: list[int] | None = None,
    order: str = "analysis_id, number",
) -> Iterator[list[Row[Any]]]:
    """The cells of a batch, or of one slide or some fields of it, in lists of at most 2,000 rows.

    A cursor on the server holds the rest: memory does not grow with the batch.
    """
    wanted = ["batch_key = :id", "received_on = :day"]
    wanted += ["slide_id = :slide"] if slide_id is not None else []
    wanted += ["field_key = any(:fields)"] if field_keys is not None else []
    result = session.execute(
        text(f"select {columns} from reporting.cell where {' and '.join(wanted)} order by {order}"),
        {"id": batch_key, "day": day, "slide": slide_id, "fields": field_keys},
        execution_options={"stream_results": True, "max_row_buffer": FETCH_ROWS},
    )
    for part in result.partitions(FETCH_ROWS):  # named: without it a text statement comes as one part
        yield list(part)


def write_cells_parquet(session: Session, batch_key: int, day: date, path: Path, warning: str | None) -> int:
    """Write one row a classified cell, all slides; returns how many. Measures that could not be taken are null."""
    columns = ", ".join([name for name, _ in _NAMED] + ["probabilities", *_LOGITS, "head_outline"])
    schema = CELL_SCHEMA.with_metadata({"warning": warning} if warning else {})
    written = 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in stream_cells(session, columns, batch_key, day):
            waiting.append(_record_batch(rows, schema))
            written += len(rows)
            if sum(batch.num_rows for batch in waiting) >= ROWS_A_GROUP:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROWS_A_GROUP)
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROWS_A_GROUP)
    return written


def _record_batch(rows: list[Row[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(values).cast(kind) for values, (_, kind) in zip(columns, _NAMED, strict=False)]
    probabilities, *logits, outlines = columns[len(_NAMED) :]
    by_class = np.asarray(probabilities, np.float32).T
    arrays += [pa.array(np.ascontiguousarray(of_class)) for of_class in by_class]
    arrays += [pa.array(values, pa.list_(pa.float32(), len(CLASS_NAMES))) for values in logits]
    arrays.append(pa.array([None if o is None else np.frombuffer(o, "<u2") for o in outlines], pa.list_(pa.uint16())))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
