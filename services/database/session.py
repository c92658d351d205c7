"""One engine a process, one way to get a session; what Postgres refuses becomes one of our errors in this one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine as Engine  # the commands name it without knowing SQLAlchemy
from sqlalchemy import create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from services.errors import ConfigurationError, MorphbatchError, OutageError

# SQLSTATE: connection, deadlock, resources, a lock not given, interruption, I/O; not there; not allowed.
_UNAVAILABLE: Final = ("08", "40", "53", "55P03", "57", "58")
_OUTDATED: Final = ("3F000", "42P01", "42703", "42883")
_REFUSED: Final = ("25006", "28", "42501")


class DatabaseUnavailable(OutageError):
    """Postgres cannot be reached, or went away in the middle of a transaction."""

    reason = "database_unavailable"


class DatabaseOutdated(ConfigurationError):
    """The database lacks a table, view or column that this version of morphbatch works with."""

    reason = "database_outdated"


class DatabaseRefused(ConfigurationError):
    """The role of the database URL may not do what was asked."""

    reason = "database_refused"


def make_engine(database_url: str) -> Engine:
    """An engine that notices a restarted server before it hands out a connection. Make it after a fork.

    On each connection of it, whatever is asked, Postgres' refusals are raised as `DatabaseUnavailable`,
    `DatabaseOutdated` or `DatabaseRefused`; other errors of SQL are SQLAlchemy's.

    Raises:
        ConfigurationError: the URL is malformed, or of another kind of database.
    """
    try:
        engine = create_engine(
            database_url,
            pool_pre_ping=True,
            pool_size=4,
            connect_args={"connect_timeout": 5, "application_name": "morphbatch"},
        )
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as error:
        # The URL itself stays out of the message: it holds a password.
        raise ConfigurationError(
            "MORPHBATCH_DATABASE_URL is not like postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from error
    if engine.dialect.name != "postgresql":
        raise ConfigurationError(f"MORPHBATCH_DATABASE_URL names {engine.dialect.name}; morphbatch needs PostgreSQL")
    event.listen(engine, "handle_error", _translated)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that commits at the end of the block and rolls back on any error.

    Raises:
        DatabaseUnavailable: the connection was lost; nothing of the block was committed.
        DatabaseOutdated, DatabaseRefused: see `make_engine`.
    """
    try:
        with Session(engine) as session, session.begin():
            yield session
    except PoolTimeout as error:
        raise DatabaseUnavailable(f"no free connection to Postgres: {error}") from error
    except engine.dialect.loaded_dbapi.Error as error:  # of a COPY, which goes past SQLAlchemy
        if isinstance(error, Exception) and (ours := _our_error(error)):
            raise ours from error
        raise


def _translated(context: ExceptionContext) -> MorphbatchError | None:
    if context.is_pre_ping:  # the pool connects again by itself
        return None
    if context.is_disconnect:
        return DatabaseUnavailable(f"Postgres is unavailable: {_said(context.original_exception)}")
    return _our_error(context.original_exception)


def _our_error(error: BaseException) -> MorphbatchError | None:
    state = getattr(error, "pgcode", None)
    # psycopg2 sets no SQLSTATE when the server cannot be reached.
    if state is None:
        unreachable = type(error).__name__ in {"OperationalError", "InterfaceError"}
        return DatabaseUnavailable(f"Postgres is unavailable: {_said(error)}") if unreachable else None
    if state.startswith(_UNAVAILABLE):
        return DatabaseUnavailable(f"Postgres is unavailable: {_said(error)}")
    if state in _OUTDATED:
        # To a role that may not even look into its schema, a table is not there.
        return DatabaseOutdated(
            f"{_said(error)}: run `morphbatch migrate`, or MORPHBATCH_DATABASE_URL needs a role that may read it"
        )
    if state.startswith(_REFUSED):
        return DatabaseRefused(
            f"Postgres refuses: {_said(error)}; check the role in MORPHBATCH_DATABASE_URL"
            " (`morphbatch migrate`: MORPHBATCH_MIGRATION_URL)"
        )
    return None


def _said(error: BaseException) -> str:
    """Postgres' own sentence, without the statement and without where in it."""
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return first
