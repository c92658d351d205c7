"""A database of the current state, made at once: what all the revisions together must come to."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, text

from services.database.models import Base
from services.reporting.columns import meaning
from services.reporting.references import MEASURES
from services.taxonomy import CLASSES

_VIEWS: Final = Path(__file__).parent / "views"
# In the order in which they build on each other.
_FILES: Final = (
    *("partitions", "reference", "intervals", "days", "slides", "images", "distributions", "cells", "fields"),
    *("history", "releases", "operations", "labs", "privileges"),
)


def create_current(connection: Connection) -> None:
    """Make tables, views, functions and privileges in an empty database; the server's roles must be there.

    Partitions of `cell` are left to `make_cell_partitions`.
    """
    Base.metadata.create_all(connection)
    for name in _FILES:
        # The driver must not read the per cent signs of the comments as parameters.
        connection.exec_driver_sql(
            (_VIEWS / f"{name}.sql").read_text("utf-8"), execution_options={"no_parameters": True}
        )
    _fill_reference_tables(connection)
    _comment_columns(connection)


def _fill_reference_tables(connection: Connection) -> None:
    connection.execute(
        text("insert into reporting.morphology_class values (:index, :name, :region, :loinc, :code, :name_tr)"),
        [
            {"index": c.index, "name": c.english, "region": c.region.value, "loinc": c.loinc,
             "code": c.code, "name_tr": c.turkish}
            for c in CLASSES
        ],
    )  # fmt: skip
    connection.execute(
        text(
            "insert into reporting.measure"
            " values (:column, :position, :unit, :meaning, :low, :high, :source, :stain)"
        ),
        [
            {"column": m.column, "position": position, "unit": m.unit, "meaning": m.meaning, "low": m.low,
             "high": m.high, "source": m.source, "stain": m.stain}
            for position, m in enumerate(MEASURES)
        ],
    )  # fmt: skip


def _comment_columns(connection: Connection) -> None:
    """A column of one name means one thing in every view, so its comment is written once."""
    columns = connection.execute(
        text(
            "select table_schema, table_name, column_name from information_schema.columns"
            " where table_schema in ('reporting', 'operations')"
        )
    )
    for schema, relation, column in columns.all():
        connection.execute(
            text(f'comment on column {schema}."{relation}"."{column}" is :comment').bindparams(
                bindparam("comment", meaning(relation, column), literal_execute=True)
            )
        )
