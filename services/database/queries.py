"""How the database is asked, and what more than one room asks. Each room's own questions stand in its `queries.py`.

A question takes a session, so that several share one transaction, and answers with frozen dataclasses, whose fields are
called like the columns.
"""

import time
from datetime import date
from typing import Final, TypeVar

from sqlalchemy import ColumnElement, Integer, column, exists, select, table, text
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, ModelRelease, Slide
from services.database.states import SLIDE_ENDED, SlideState

_T = TypeVar("_T")

CURRENT_ANALYSIS: Final = table(
    "current_analysis", column("analysis_id", Integer), column("slide_key", Integer), schema="reporting"
)
"""The view of the one analysis of each slide that counts."""

LATEST_ANALYSIS: Final = table(
    "latest_analysis", column("analysis_id", Integer), column("slide_key", Integer), schema="reporting"
)
"""The view of the analysis of each slide that was asked for last, whatever came of it."""

NO_SLIDE_IS_OPEN: Final[ColumnElement[bool]] = ~(
    exists()
    .where(
        Analysis.slide_key == Slide.id,
        Slide.batch_key == Batch.id,
        Analysis.state.in_([state.value for state in SlideState if state not in SLIDE_ENDED]),
    )
    .correlate(Batch)
)
"""Of a batch: no analysis of its slides is queued or running."""


def read_rows(session: Session, row_type: type[_T], query: str, **values: object) -> list[_T]:
    """Each row that `query` gives for `values`, as a `row_type`."""
    return [row_type(**row) for row in session.execute(text(query), values).mappings()]


def active_release_id(session: Session) -> str | None:
    """The release under which new slides are analysed; `None` before the first."""
    return session.scalar(select(ModelRelease.id).where(ModelRelease.active))


def server_version(session: Session) -> str:
    """Postgres' version."""
    return str(session.execute(text("show server_version")).scalar_one())


def connections_left(session: Session) -> tuple[int, int]:
    """How many more connections this Postgres gives to roles that are no superusers, and how many it gives in all."""
    left, most = session.execute(
        text(
            "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
            " - (select count(*)::int from pg_stat_activity where backend_type = 'client backend'),"
            " current_setting('max_connections')::int"
        )
    ).one()
    return left, most


def try_to_write(session: Session) -> None:
    """Write a row and take it back: proves that the database takes writes, which an answer to a question does not."""
    with session.begin_nested() as written:
        session.execute(text("insert into lab (code) values ('try-to-write')"))
        written.rollback()


def clock_ahead_s(session: Session) -> float:
    """How far Postgres' clock is ahead of this machine's, seconds; exact to half the time of a round trip."""
    session.connection()  # to open one takes longer than to ask
    before = time.time()
    theirs = float(session.execute(text("select extract(epoch from clock_timestamp())")).scalar_one())
    return theirs - (before + time.time()) / 2


def readable_views(session: Session) -> list[str]:
    """The views of the schema `reporting`, after each was read.

    Raises:
        DatabaseOutdated, DatabaseRefused: one of them cannot be.
    """
    names = session.scalars(text("select viewname from pg_views where schemaname = 'reporting' order by 1")).all()
    for name in names:
        session.execute(text(f'select from reporting."{name}" limit 0'))
    return list(names)


def has_role(session: Session, name: str) -> bool:
    """Whether the server has this role."""
    return session.execute(text("select from pg_roles where rolname = :name"), {"name": name}).first() is not None


def months_ahead(session: Session, months: int) -> dict[date, bool]:
    """The first days of this month and of the next (UTC), `months` in all, and whether `cell` has a partition for it.

    By the partitions' bounds, which decide where a cell goes, not by their names.
    """
    found = session.execute(
        text(
            "select month::date, exists (select from pg_inherits join pg_class on pg_class.oid = inhrelid"
            "  where inhparent = 'cell'::regclass and pg_get_expr(relpartbound, pg_class.oid)"
            "   like format('FOR VALUES FROM (''%s'')%%', month::date))"
            " from (select date_trunc('month', now() at time zone 'utc') + make_interval(months => n) as month"
            "  from generate_series(0, cast(:months as integer) - 1) n) ahead order by 1"
        ),
        {"months": months},
    )
    return {first_day: bool(covered) for first_day, covered in found}
