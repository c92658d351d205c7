"""Logits of many cells out of Postgres, and classes back in, by binary COPY: arrays at both ends, no text between.

The layout is that of PostgreSQL's documentation of COPY, "Binary Format", and of `array_send`: every number is
big-endian; a field is its length and its bytes; an array is its dimensions, then its elements as fields.
"""

import io
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.errors import PermanentError
from services.taxonomy import CLASS_NAMES

_CLASSES: Final = len(CLASS_NAMES)
_FLOAT4_OID: Final = 700
_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"

_REALS: Final = np.dtype(
    [
        ("length", ">i4"),
        *((name, ">i4") for name in ("dimensions", "has_null", "element", "size", "first")),
        ("values", [("length", ">i4"), ("value", ">f4")], _CLASSES),
    ]
)
_REALS_LENGTH: Final = _REALS.itemsize - 4


class LogitsBroken(PermanentError, ValueError):
    """Cells in the database have logits of another number of classes: another version wrote them."""

    reason = "logits_broken"


def _row(**columns: Any) -> np.dtype[Any]:
    """A row of COPY: how many fields, then each with its length; arrays of reals hold theirs."""
    fields: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, kind in columns.items():
        fields += [(name, kind)] if kind is _REALS else [(f"{name}_length", ">i4"), (name, kind)]
    return np.dtype(fields)


_READ: Final = _row(analysis_id=">i4", number=">i4", class_index=">i2", efficientnetv2_s=_REALS, resnetv2_50=_REALS)
_WRITTEN: Final = _row(
    analysis_id=">i4", number=">i4", new_id=">i4", class_index=">i2", confidence=">f4", probabilities=_REALS
)


@dataclass(frozen=True, slots=True)
class Logits:
    """Both networks' logits `[N, 18]` of cells, each known by `analysis_id` and `number`, and its class on record."""

    analysis_id: NDArray[np.int64]
    number: NDArray[np.int64]
    class_index: NDArray[np.int64]
    efficientnetv2_s: NDArray[np.float32]
    resnetv2_50: NDArray[np.float32]


def read_logits(session: Session, day: date, analyses: list[int]) -> Logits:
    """The cells of `analyses`, all of batches received on `day`.

    Raises:
        LogitsBroken: a cell's logits are not 18 numbers.
    """
    cursor = session.connection().connection.cursor()
    statement = cursor.mogrify(
        "copy (select analysis_id, number, class_index, efficientnetv2_s_logits, resnetv2_50_logits from cell"
        " where received_on = %s and analysis_id = any(%s)) to stdout with (format binary)",
        (day, analyses),
    )
    file = io.BytesIO()
    cursor.copy_expert(statement.decode(), file)
    body = memoryview(file.getbuffer())[len(_HEADER) : -len(_TRAILER)]
    rows = np.frombuffer(body, _READ) if len(body) % _READ.itemsize == 0 else None
    if rows is None or not all(_is_whole(rows[name]) for name in ("efficientnetv2_s", "resnetv2_50")):
        raise LogitsBroken(f"cells received on {day} have logits that are not {_CLASSES} numbers")
    return Logits(
        rows["analysis_id"].astype(np.int64),
        rows["number"].astype(np.int64),
        rows["class_index"].astype(np.int64),
        rows["efficientnetv2_s"]["values"]["value"].astype(np.float32),
        rows["resnetv2_50"]["values"]["value"].astype(np.float32),
    )


def write_reapplied(
    session: Session, logits: Logits, new_id: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> None:
    """Leave analysis, number, new analysis, class, confidence and probabilities in the session's table `reapplied`.

    The table is of this transaction, and holds nothing else.
    """
    session.execute(
        text(
            "create temporary table if not exists reapplied (analysis_id integer, number integer, new_id integer,"
            " class_index smallint, confidence real, probabilities real[]) on commit drop"
        )
    )
    session.execute(text("truncate reapplied"))
    rows = np.zeros(len(probabilities), _WRITTEN)
    best = probabilities.argmax(axis=1)
    columns = {
        "analysis_id": logits.analysis_id,
        "number": logits.number,
        "new_id": new_id,
        "class_index": best,
        "confidence": probabilities[np.arange(len(best)), best],
    }
    rows["fields"] = len(columns) + 1
    for name, values in columns.items():
        rows[f"{name}_length"] = _WRITTEN[name].itemsize
        rows[name] = values
    reals = rows["probabilities"]
    reals["length"], reals["dimensions"], reals["element"] = _REALS_LENGTH, 1, _FLOAT4_OID
    reals["size"], reals["first"] = _CLASSES, 1
    reals["values"]["length"], reals["values"]["value"] = 4, probabilities
    file = io.BytesIO(_HEADER + rows.tobytes() + _TRAILER)
    session.connection().connection.cursor().copy_expert("copy reapplied from stdin with (format binary)", file, 2**20)


def _is_whole(reals: NDArray[Any]) -> bool:
    return bool((reals["length"] == _REALS_LENGTH).all() and (reals["size"] == _CLASSES).all())
