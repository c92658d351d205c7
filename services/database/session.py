"""One engine a process, one way to get a session; what Postgres refuses becomes one of our errors in this one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg2
from sqlalchemy import Engine as Engine  # the commands name it without knowing SQLAlchemy
from sqlalchemy import create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from services.database.faults import LOST, DatabaseFull, described, fault_of
from services.errors import ConfigurationError, MorphbatchError

# A host of Postgres that vanishes without a word is noticed after half a minute, not after Linux's quarter of an hour.
_SILENCE: Final = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}


def make_engine(database_url: str) -> Engine:
    """An engine that notices a restarted server before it hands out a connection. Make it after a fork.

    On each connection of it, whatever is asked, what `services.database.faults` lists is raised as the error that it
    names (`DatabaseUnavailable` and its kinds, `DatabaseOutdated`, `DatabaseRefused`), and connections that are of no
    use any more are dropped; other errors of SQL are SQLAlchemy's.

    Raises:
        ConfigurationError: the URL is malformed, or of another kind of database.
    """
    try:
        engine = create_engine(
            database_url,
            pool_pre_ping=True,
            pool_size=4,
            connect_args={"connect_timeout": 5, "application_name": "morphbatch", **_SILENCE},
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
        DatabaseUnavailable, DatabaseOutdated, DatabaseRefused: see `make_engine`; nothing of the block was committed.
    """
    try:
        with Session(engine) as session:
            try:
                yield session
                session.commit()
            except psycopg2.Error as error:  # of a COPY, which goes past SQLAlchemy
                fault = fault_of(error)
                if fault is None:
                    raise
                if fault.drops:
                    session.invalidate()
                    engine.dispose()
                raise described(fault, error) from error
    except PoolTimeout as error:
        raise DatabaseFull(f"no free connection to Postgres: {error}") from error


def _translated(context: ExceptionContext) -> MorphbatchError | None:
    if context.is_pre_ping:  # the pool connects again by itself
        return None
    fault = LOST if context.is_disconnect else fault_of(context.original_exception)
    if fault is None:
        return None
    # Not only this connection is dropped: those that wait in the pool lead to the same server in the same state.
    context.is_disconnect = fault.drops
    return described(fault, context.original_exception)
