"""Rows as Postgres reads them from a COPY."""

import csv
import io
from typing import IO, cast

import numpy as np
from sqlalchemy.orm import Session

from services.analysis.rows import CopySpool


class Copied:
    """A session, its connection and cursor in one, which keeps what is copied."""

    def __init__(self) -> None:
        self.connection = self
        self.statement = ""
        self.text = ""

    def __call__(self) -> "Copied":
        return self

    def cursor(self) -> "Copied":
        return self

    def copy_expert(self, statement: str, file: IO[str]) -> None:
        self.statement, self.text = statement, file.read()


def copied(*rows: tuple[object, ...]) -> list[list[str]]:
    spool = CopySpool("cell", ["one"])
    for row in rows:
        spool.add(row)
    assert spool.rows == len(rows)
    session = Copied()
    spool.write(cast(Session, session))
    spool.close()
    assert session.statement == "copy cell (one) from stdin with (format csv)"
    return list(csv.reader(io.StringIO(session.text)))


def test_every_float32_of_an_array_comes_back_to_the_bit() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 4000, np.uint32)
    values = np.concatenate([bits.view(np.float32), np.array([0, 1, -1, 1e-45, 3.4e38, 1 / 3], np.float32)])
    values = values[np.isfinite(values)]
    [[text]] = copied((values,))
    assert text[0] + text[-1] == "{}"
    back = np.array(text[1:-1].split(","), np.float64).astype(np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), values.view(np.uint32))


def test_each_kind_of_value_takes_the_form_that_postgres_reads() -> None:
    row = (None, 7, 0.1, "a, b", b"\x00\xff", {"x": [1]}, [{"box": [1, 2]}], np.array([], np.float32))
    assert copied(row, (None,)) == [
        ["", "7", "0.1", "a, b", "\\x00ff", '{"x": [1]}', '[{"box": [1, 2]}]', "{}"],
        [""],
    ]


def test_rows_are_left_out_and_the_others_counted_anew() -> None:
    spool = CopySpool("cell", ["number", "field_id", "text"])
    for number, field_id in enumerate((7, 8, 7, 9, 8), 1):
        spool.add((number, field_id, f'{field_id}, "{number}"\n'))
    kept = spool.without("field_id", [8, 10], number="number")
    session = Copied()
    kept.write(cast(Session, session))
    assert kept.rows == 3
    assert list(csv.reader(io.StringIO(session.text))) == [
        ["1", "7", '7, "1"\n'],
        ["2", "7", '7, "3"\n'],
        ["3", "9", '9, "4"\n'],
    ]
    kept.close()
