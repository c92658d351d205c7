"""One engine a process, one way to get a session."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine as Engine  # the commands name it without knowing SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from services.errors import OutageError


class DatabaseUnavailable(OutageError):
    """Postgres cannot be reached, or went away in the middle of a transaction."""

    reason = "database_unavailable"


def make_engine(database_url: str) -> Engine:
    """An engine that notices a restarted server before it hands out a connection. Make it after a fork."""
    return create_engine(
        database_url,
        pool_pre_ping=True,
        pool_size=4,
        connect_args={"connect_timeout": 5, "application_name": "morphbatch"},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that commits at the end of the block and rolls back on any error.

    Raises:
        DatabaseUnavailable: the connection was lost; nothing of the block was committed.
    """
    try:
        with Session(engine) as session, session.begin():
            yield session
    except DBAPIError as error:
        if error.connection_invalidated or _is_connection_failure(error):
            raise DatabaseUnavailable(f"Postgres is unavailable: {error.orig}") from error
        raise
    except PoolTimeout as error:
        raise DatabaseUnavailable(f"no free connection to Postgres: {error}") from error


def _is_connection_failure(error: DBAPIError) -> bool:
    state = getattr(error.orig, "pgcode", None)
    # psycopg2 sets no SQLSTATE when the server cannot be reached; 08 is connection, 57P is shutdown, 40 is deadlock.
    return (
        (state is None and type(error.orig).__name__ == "OperationalError")
        or (state or "")[:2] in {"08", "40"}
        or (state or "").startswith("57P")
    )
