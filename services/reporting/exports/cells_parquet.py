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
from services.taxonomy import CLASSES

ROWS_PER_GROUP: Final = 20_000
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())


def _column(name: str, kind: pa.DataType, description: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"description": description, **({"unit": unit} if unit else {})})


# Columns of `reporting.cell`, by the same names.
_NAMED: Final[tuple[pa.Field, ...]] = (
    _column("lab", _TEXT, "Code of the laboratory"),
    _column("batch_id", _TEXT, "batch_id of the manifest; unique within a lab"),
    _column("received_on", pa.date32(), "Day of receipt"),
    _column("slide_id", _TEXT, "slide_id of the manifest; unique within a batch"),
    _column("specimen", _TEXT, "Pseudonym of the specimen"),
    _column("replicate", pa.int8(), "1 or 2"),
    _column("stain", _TEXT, "Stain of the slide"),
    _column("um_per_px", pa.float64(), "Scale of the field", "µm per pixel"),
    _column("release_id", _TEXT, "Release of the networks"),
    _column("release_kind", _TEXT, "untrained and demonstration: the classes mean nothing"),
    _column("field", _TEXT, "Object key of the image, relative to the batch"),
    _column("number", pa.int32(), "Number of the cell in its analysis, from 1"),
    _column("x0", pa.int32(), "Head box, left", "pixels of the field"),
    _column("y0", pa.int32(), "Head box, top", "pixels of the field"),
    _column("x1", pa.int32(), "Head box, right, exclusive", "pixels of the field"),
    _column("y1", pa.int32(), "Head box, bottom, exclusive", "pixels of the field"),
    _column("class_index", pa.int8(), "Index of the class in the logits, from 0"),
    _column("class_code", _TEXT, "The class with the largest fused probability, for programs"),
    _column("class_name", _TEXT, "The class, for readers of English"),
    _column("class_name_tr", _TEXT, "The class, for readers of Turkish"),
    _column("region", _TEXT, "Where the primary defect sits: head, neck, tail; normal: normal form"),
    _column("confidence", pa.float32(), "Largest fused probability", "0 to 1"),
    *(_column(m.column, pa.float32(), f"{m.meaning}; null where it cannot be measured", m.unit) for m in MEASURES),
)
_LOGITS: Final = ("efficientnetv2_s_logits", "resnetv2_50_logits")
CELL_SCHEMA: Final = pa.schema(
    [
        *_NAMED,
        *(
            _column(f"p_{known.code}", pa.float32(), f"Fused probability of {known.english}", "0 to 1")
            for known in CLASSES
        ),
        *(
            _column(name, pa.list_(pa.float32(), len(CLASSES)), "Logits of the network, in class index order")
            for name in _LOGITS
        ),
        _column("head_outline_px", pa.list_(pa.uint16()), "Outline of the head: x, y, x, y …", "pixels of the field"),
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
