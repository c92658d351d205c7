"""cells.parquet: one row per classified cell of a batch, for data frames."""

from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Row
from sqlalchemy.orm import Session

from services.reporting.columns import meaning
from services.reporting.queries import stream_cells
from services.reporting.references import MEASURES
from services.taxonomy import CLASSES

ROWS_PER_GROUP: Final = 20_000
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())


def _column(name: str, kind: pa.DataType, unit: str = "", description: str | None = None) -> pa.Field:
    """A column of `reporting.cell` is described as there."""
    metadata = {"description": meaning("cell", name) if description is None else description}
    return pa.field(name, kind, metadata={**metadata, **({"unit": unit} if unit else {})})


# Columns of `reporting.cell`, by the same names.
_NAMED: Final[tuple[pa.Field, ...]] = (
    *(_column(name, _TEXT) for name in ("lab", "batch_id")),
    _column("received_on", pa.date32()),
    *(_column(name, _TEXT) for name in ("slide_id", "specimen")),
    _column("replicate", pa.int8()),
    _column("stain", _TEXT),
    _column("um_per_px", pa.float64(), "µm per pixel"),
    _column("collected_at", pa.timestamp("us", "UTC")),
    _column("day", pa.date32()),
    *(_column(name, _TEXT) for name in ("release_id", "release_kind", "field")),
    _column("number", pa.int32()),
    *(_column(name, pa.int32(), "pixels of the field") for name in ("x0", "y0", "x1", "y1")),
    _column("class_index", pa.int8()),
    *(_column(name, _TEXT) for name in ("class_code", "class_name", "class_name_tr", "region")),
    _column("confidence", pa.float32(), "0 to 1"),
    *(_column(m.column, pa.float32(), m.unit) for m in MEASURES),
    _column("crop_inside_share", pa.float32(), "0 to 1"),
    _column("not_counted", _TEXT),
)
_LOGITS: Final = ("efficientnetv2_s_logits", "resnetv2_50_logits")
_OUTLINE: Final = "Outline of the head: x, y, x, y …"
CELL_SCHEMA: Final = pa.schema(
    [
        *_NAMED,
        *(_column(f"p_{c.code}", pa.float32(), "0 to 1", f"Fused probability of {c.english}") for c in CLASSES),
        *(_column(name, pa.list_(pa.float32(), len(CLASSES))) for name in _LOGITS),
        _column("head_outline_px", pa.list_(pa.uint16()), "pixels of the field", _OUTLINE),
    ]
)


def write_cells_parquet(session: Session, batch_key: int, day: date, path: Path, warning: str | None) -> int:
    """Write one row per classified cell of all slides; returns how many. Measures that could not be taken are null."""
    columns = ", ".join([field.name for field in _NAMED] + ["probabilities", *_LOGITS, "head_outline"])
    schema = CELL_SCHEMA.with_metadata({"warning": warning} if warning else {})
    written = 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in stream_cells(session, columns, batch_key, day):
            waiting.append(_record_batch(rows, schema))
            written += len(rows)
            if sum(batch.num_rows for batch in waiting) >= ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROWS_PER_GROUP)
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROWS_PER_GROUP)
    return written


def _record_batch(rows: list[Row[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(values).cast(field.type) for values, field in zip(columns, _NAMED, strict=False)]
    probabilities, *logits, outlines = columns[len(_NAMED) :]
    by_class = np.asarray(probabilities, np.float32).T
    arrays += [pa.array(np.ascontiguousarray(of_class)) for of_class in by_class]
    arrays += [pa.array(values, pa.list_(pa.float32(), len(CLASSES))) for values in logits]
    arrays.append(pa.array([None if o is None else np.frombuffer(o, "<u2") for o in outlines], pa.list_(pa.uint16())))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
