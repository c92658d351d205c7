"""Questions that people ask in SQL: one query with its rows, or what psql needs to open a session."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from services.database.faults import DatabaseOutdated, DatabaseRefused
from services.database.session import make_engine
from services.errors import ConfigurationError, PermanentError


class QueryFailed(PermanentError):
    """Postgres does not answer the query; the message is its own."""

    reason = "query_failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query, and the names of their columns; neither, for a statement that has none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def records(self) -> list[dict[str, Any]]:
        """Each row by the names of its columns, bytes as hexadecimal text."""
        return [dict(zip(self.columns, map(_readable, row), strict=True)) for row in self.rows]


def ask(database_url: str, query: str) -> Answer:
    """The rows of `query`, asked in a transaction that can change nothing.

    Raises:
        QueryFailed: Postgres refuses the query.
        DatabaseUnavailable: it cannot be reached.
        ConfigurationError: the URL is malformed.
    """
    engine = make_engine(database_url)
    try:
        with engine.connect().execution_options(postgresql_readonly=True, no_parameters=True) as connection:
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                return Answer((), ())
            return Answer(tuple(result.keys()), tuple(tuple(row) for row in result))
    except (DatabaseOutdated, DatabaseRefused, SQLAlchemyError) as error:
        raise QueryFailed(str(error.__cause__ or error).strip()) from error
    finally:
        engine.dispose()


def psql_session(database_url: str) -> tuple[str, Mapping[str, str]]:
    """What opens a session of psql: its argument, and the variable that hands it the password, if there is one.

    Raises:
        ConfigurationError: the URL is malformed.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise ConfigurationError("the URL of the database is malformed") from error
    asked = dict(url.query)
    password = asked.pop("password", None) or url.password
    without = URL.create("postgresql", url.username, None, url.host, url.port, url.database, asked)
    return without.render_as_string(hide_password=False), {} if password is None else {"PGPASSWORD": str(password)}


def _readable(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value
