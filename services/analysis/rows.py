"""Rows on their way into Postgres by COPY, kept in a file once they are many: memory stays flat for any slide."""

import csv
import io
import json
import tempfile
from collections.abc import Collection, Iterable, Sequence
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

_SPOOL_BYTES = 8 * 2**20


class CopySpool:
    """Rows of one table. `None` is null; arrays, dicts, lists and bytes take Postgres's own text forms."""

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        self._table, self._columns = table, tuple(columns)
        self._statement = f"copy {table} ({', '.join(columns)}) from stdin with (format csv)"
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by close()
        self._text = io.TextIOWrapper(self._file, encoding="utf-8", newline="")
        self._csv = csv.writer(self._text)
        self.rows = 0

    def add(self, row: Iterable[object]) -> None:
        """Append one row, in the order of the columns."""
        self._csv.writerow([_as_text(value) for value in row])
        self.rows += 1

    def without(self, column: str, values: Collection[object], number: str) -> Self:
        """The rows but for those that have one of `values` in `column`, numbered from 1 in the column `number`.

        This spool is closed.
        """
        left_out, at, counted = set(map(str, values)), self._columns.index(column), self._columns.index(number)
        kept = type(self)(self._table, self._columns)
        self._text.seek(0)
        for row in csv.reader(self._text):
            if row[at] not in left_out:
                row[counted] = str(kept.rows + 1)
                kept.add(row)
        self.close()
        return kept

    def write(self, session: Session) -> None:
        """COPY all rows within the session's transaction."""
        self._text.seek(0)
        cursor = session.connection().connection.cursor()
        cursor.copy_expert(self._statement, self._text)

    def close(self) -> None:
        """Drop the rows."""
        self._text.close()


def _as_text(value: object) -> object:
    if isinstance(value, np.ndarray):
        return _array_literal(value)
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return value


def _array_literal(values: NDArray[np.float32]) -> str:
    # Nine digits tell any two of them apart; to find the shortest that do takes three times as long.
    return "{" + ",".join(["%.9g"] * len(values)) % tuple(values.tolist()) + "}"
