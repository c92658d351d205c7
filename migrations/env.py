"""Alembic's environment: one migration at a time in the whole cluster, and none that waits long for a busy table."""

from alembic import context
from sqlalchemy import text

from services.database.session import make_engine

# Any fixed number; every migrating process takes the same lock.
ADVISORY_LOCK = 0x6D6F7270


def run_migrations() -> None:
    """Migrate the database named in the configuration, each revision in a transaction of its own."""
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise RuntimeError("no sqlalchemy.url in Alembic's configuration; run migrations by `morphbatch migrate`")
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            # Before the time limit: another process may migrate for longer.
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            connection.execute(text("set lock_timeout = '10s'"))
            connection.commit()  # the lock belongs to the connection, not to a transaction
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()  # closes the connection, which gives the lock back


run_migrations()
