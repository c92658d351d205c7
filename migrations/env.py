"""Alembic's environment: one migration at a time in the whole cluster, and none that waits long for a busy table."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import text

from services.database.session import make_engine

# Any fixed number; every migrating process takes the same lock.
ADVISORY_LOCK = 0x6D6F7270


def oldest_code(script: ScriptDirectory, head: str) -> str:
    """The oldest revision whose code works with `head`: between the two nothing was taken away that it uses."""
    oldest, revision = "", head
    while revision is not None and revision > oldest:
        module = script.get_revision(revision).module
        if not getattr(module, "only_expands", False):
            oldest = max(oldest, getattr(module, "oldest_code", revision))
        revision = module.down_revision
    return oldest


def note_oldest_code(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[str], run_args: Mapping[str, Any]
) -> None:
    """Write down which code works with the revision that was reached, in the transaction that reached it."""
    del step, run_args
    for head in heads:
        oldest = oldest_code(context.script, head)
        # What `migrations.run.require_head` reads.
        connection = ctx.connection
        if connection is not None:
            connection.execute(text(f"comment on table alembic_version is 'works with code of {oldest} and later'"))


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
            context.configure(connection=connection, transaction_per_migration=True, on_version_apply=note_oldest_code)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()  # closes the connection, which gives the lock back


run_migrations()
