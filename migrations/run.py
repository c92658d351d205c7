"""Runs the migrations and states which revision a database should have."""

import logging
import re
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, text

from services.database.faults import DatabaseRefused
from services.database.session import transaction
from services.errors import ConfigurationError
from services.settings import Settings

log = logging.getLogger(__name__)

_OLDEST_CODE: Final = re.compile(r"works with code of (\d{4}) and later")  # as `migrations/env.py` writes it


def _config(database_url: str = "") -> Config:
    config = Config()
    for name, value in (("script_location", str(Path(__file__).parent)), ("sqlalchemy.url", database_url)):
        config.set_main_option(name, value.replace("%", "%%"))  # a password's, or a folder's
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database up to `revision`; waits while another process migrates.

    Raises:
        ConfigurationError: the database is at a revision that this code does not know.
        DatabaseUnavailable, DatabaseRefused: see `services.database.session.make_engine`.
    """
    try:
        command.upgrade(_config(database_url), revision)
    except CommandError as error:
        raise ConfigurationError(f"cannot migrate: {error} (a newer version made this database?)") from error


def migrate(settings: Settings) -> None:
    """Bring the database that the settings name up to this version's revision, as its owner.

    Raises: as `upgrade`.
    """
    upgrade(settings.migration_url or settings.database_url)


def downgrade(database_url: str, revision: str) -> None:
    """Take the database back to `revision` (`base`: to nothing)."""
    command.downgrade(_config(database_url), revision)


def head_revision() -> str:
    """The revision that this version requires."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise ConfigurationError("no migrations are installed beside the code")
    return head


def require_head(engine: Engine) -> None:
    """Check that the database is at the revision that this version requires, or at a later one that it works with.

    Raises:
        ConfigurationError: it is not; the message says which it has and what to run.
        DatabaseUnavailable: it cannot be asked.
    """
    wanted = head_revision()
    try:
        with transaction(engine) as session:
            found = MigrationContext.configure(session.connection()).get_current_revision()
            said = session.scalar(text("select obj_description(to_regclass('alembic_version'), 'pg_class')"))
    except DatabaseRefused as error:  # before the revision that lets the service read it
        raise ConfigurationError(
            f"the database's revision cannot be read, this code needs {wanted}: run `morphbatch migrate` ({error})"
        ) from error
    if found is not None and found > wanted and (oldest := _OLDEST_CODE.search(said or "")) and oldest[1] <= wanted:
        log.warning(
            "the database is at revision %s, this version requires %s: install the later version", found, wanted
        )
    elif found != wanted:
        raise ConfigurationError(
            f"the database is at revision {found or 'none'}, this version requires {wanted}: run `morphbatch migrate`"
        )
