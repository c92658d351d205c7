"""One name for one thing in JSON, CSV, Parquet and SQL: each stands where the page on reports says."""

import json
from typing import Any

import pytest

from services.reporting.columns import COLUMN_MEANINGS, meaning
from services.reporting.exports.cells_parquet import CELL_SCHEMA
from services.reporting.exports.tables_csv import SLIDE_COLUMNS, SPECIMEN_COLUMNS
from services.reporting.references import MEASURES
from services.taxonomy import CLASSES
from tests.places import CHECKOUT


def keys_of(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for part in value for key in keys_of(part)}
    return set(value) | keys_of(list(value.values())) if isinstance(value, dict) else set()


HOLDERS = {
    "JSON": keys_of(json.loads((CHECKOUT / "tests/integration/reporting/example/report.json").read_text()))
    | {"p_value"},
    "slides.csv": set(SLIDE_COLUMNS),
    "specimens.csv": set(SPECIMEN_COLUMNS),
    "Parquet": set(CELL_SCHEMA.names),
    "SQL": {name.split(".")[-1] for name in COLUMN_MEANINGS},
}


def listed() -> list[list[str]]:
    section = (CHECKOUT / "docs/reports.md").read_text().split("## One vocabulary")[1].split("\n## ")[0]
    table = section[section.index("| name | what |") :]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


@pytest.mark.parametrize("row", listed()[2:], ids=lambda row: row[0])
def test_a_name_stands_where_the_page_says_and_nowhere_else(row: list[str]) -> None:
    name, marks = row[0], dict(zip(listed()[0], row, strict=True))
    assert {holder: name in names for holder, names in HOLDERS.items()} == {h: marks[h] == "✓" for h in HOLDERS}


@pytest.mark.parametrize(
    "columns", [SLIDE_COLUMNS, SPECIMEN_COLUMNS, CELL_SCHEMA.names], ids=["slide", "specimen", "cell"]
)
def test_columns_differ_where_case_does_not_count(columns: tuple[str, ...]) -> None:
    assert len({name.casefold() for name in columns}) == len(columns)


def test_no_folder_name_of_a_class_is_a_column() -> None:
    folders = {c.label for c in CLASSES if c.label != c.english}
    assert not {f for f in folders for name in (*SLIDE_COLUMNS, *CELL_SCHEMA.names) if f in name}


def test_every_column_of_cells_is_described_as_in_sql_and_measures_have_their_unit() -> None:
    for field in CELL_SCHEMA:
        described = field.metadata[b"description"].decode()
        if field.name in COLUMN_MEANINGS:
            assert described == meaning("cell", field.name)
        else:
            assert field.name.startswith("p_") or field.name == "head_outline_px"
            assert described
    for measure in MEASURES:
        assert CELL_SCHEMA.field(measure.column).metadata[b"unit"].decode() == measure.unit
