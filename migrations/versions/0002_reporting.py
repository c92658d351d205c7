"""Schema `reporting`: the views that analysts use, and the role that sees nothing else."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from migrations.column_comments import COLUMN_COMMENTS
from services.reporting.references import MEASURES
from services.taxonomy import CLASSES, REGION_LOINC

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

VIEWS = Path(__file__).parent.parent / "views" / "reporting.sql"

# A role belongs to the whole server: another database may have made it, or be making it at this moment.
MAKE_ANALYST = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'morphbatch_analyst') then
        create role morphbatch_analyst nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception 'role morphbatch_analyst is missing and this role may not create it'
            using hint = 'As a superuser: create role morphbatch_analyst nologin; then migrate again.';
end $$;
"""


def upgrade() -> None:
    op.execute("create schema reporting")
    op.execute("comment on schema reporting is 'Morphology results for analysts: commented views, read-only'")
    _morphology_class()
    _measure()
    # The driver must not read the per cent signs of the comments as parameters.
    connection = op.get_bind()
    connection.exec_driver_sql(VIEWS.read_text("utf-8"), execution_options={"no_parameters": True})
    _comment_columns(connection)
    op.execute(MAKE_ANALYST)
    op.execute("grant usage on schema reporting to morphbatch_analyst")
    op.execute("grant select on all tables in schema reporting to morphbatch_analyst")
    # Views that a later revision adds need no grant of their own.
    op.execute("alter default privileges in schema reporting grant select on tables to morphbatch_analyst")


def downgrade() -> None:
    # The role stays: it belongs to the server, and other databases may grant it something.
    op.execute("alter default privileges in schema reporting revoke select on tables from morphbatch_analyst")
    op.execute("drop schema reporting cascade")


def _morphology_class() -> None:
    table = op.create_table(
        "morphology_class",
        sa.Column("class_index", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(), nullable=False, unique=True),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("loinc", sa.String()),
        sa.Column("region_loinc", sa.String(), nullable=False),
        schema="reporting",
        comment="The 18 classes, in the index order of every array of probabilities",
    )
    op.bulk_insert(
        table,
        [
            {
                "class_index": c.index,
                "name": c.name,
                "region": c.region.value,
                "loinc": c.loinc,
                "region_loinc": REGION_LOINC[c.region],
            }
            for c in CLASSES
        ],
    )


def _measure() -> None:
    table = op.create_table(
        "measure",
        sa.Column("measure", sa.String(), primary_key=True),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("meaning", sa.String(), nullable=False),
        sa.Column("who_low", sa.Double()),
        sa.Column("who_high", sa.Double()),
        sa.Column("source", sa.String()),
        schema="reporting",
        comment="The measures of a head, their units, and the WHO reference range of those that have one",
    )
    op.bulk_insert(
        table,
        [
            {
                "measure": m.column,
                "position": position,
                "unit": m.unit,
                "meaning": m.meaning,
                "who_low": m.low,
                "who_high": m.high,
                "source": m.source,
            }
            for position, m in enumerate(MEASURES)
        ],
    )


def _comment_columns(connection: sa.Connection) -> None:
    """A column of one name means one thing in every view, so its comment is written once."""
    columns = connection.execute(
        sa.text(
            "select table_name, column_name from information_schema.columns where table_schema = 'reporting'"
            " order by table_name, ordinal_position"
        )
    ).all()
    measures = {m.column: f"{m.meaning}, {m.unit}; null where it cannot be measured on this cell" for m in MEASURES}
    for relation, column in columns:
        comment = COLUMN_COMMENTS.get(f"{relation}.{column}") or {**measures, **COLUMN_COMMENTS}[column]
        op.execute(
            sa.text(f'comment on column reporting."{relation}"."{column}" is :comment').bindparams(
                sa.bindparam("comment", comment, literal_execute=True)
            )
        )
