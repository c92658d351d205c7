"""cells.parquet: one row per classified cell of a batch, for data frames."""

from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Row
from sqlalchemy.orm import Session

from services.reporting.queries import stream_cells
from services.reporting.references import MEASURES
from services.taxonomy import CLASS_NAMES

ROWS_PER_GROUP: Final = 20_000
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


def write_cells_parquet(session: Session, batch_key: int, day: date, path: Path, warning: str | None) -> int:
    """Write one row per classified cell of all slides; returns how many. Measures that could not be taken are null."""
    columns = ", ".join([name for name, _ in _NAMED] + ["probabilities", *_LOGITS, "head_outline"])
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
    arrays = [pa.array(values).cast(kind) for values, (_, kind) in zip(columns, _NAMED, strict=False)]
    probabilities, *logits, outlines = columns[len(_NAMED) :]
    by_class = np.asarray(probabilities, np.float32).T
    arrays += [pa.array(np.ascontiguousarray(of_class)) for of_class in by_class]
    arrays += [pa.array(values, pa.list_(pa.float32(), len(CLASS_NAMES))) for values in logits]
    arrays.append(pa.array([None if o is None else np.frombuffer(o, "<u2") for o in outlines], pa.list_(pa.uint16())))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
