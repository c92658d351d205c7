"""Servers of the embedded stack, one by one: how a test starts its own, and what the session's fixtures are made of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import Engine, make_url
from sqlalchemy.orm import Session

from migrations.run import upgrade
from services.database.session import make_engine, transaction
from services.local.child import Child, ServiceState
from services.local.installation import OWNER, SERVICE, Installation, S3Flavour, prepare_installation
from services.local.object_store import find_minio, s3_service
from services.local.postgres import postgres_service
from services.local.service import Service
from services.local.settings import load_local_settings, settings_of
from services.settings import Settings
from services.storage import ObjectStore, connect_store
from tests.waiting import wait_until


@contextmanager
def serving(service: Service, installation: Installation) -> Iterator[Child]:
    """The service as a running process, ready; it is gone at the end of the block."""
    child = Child(service, installation.logs / f"{service.name}.log", {"PATH": "/usr/bin:/bin"})
    child.start()
    try:
        wait_for(child)
        yield child
    finally:
        child.stop()


def wait_for(child: Child) -> None:
    """Wait until the service is ready, and say what its log says if it is not."""

    def ready() -> bool:
        child.look()
        return child.state is ServiceState.READY

    try:
        wait_until(ready)
    except AssertionError as error:
        raise AssertionError(f"{child.service.name}: {child.trouble}\n{child.log_tail()}") from error


@contextmanager
def s3_installation(home: Path, flavour: S3Flavour) -> Iterator[tuple[Installation, Child]]:
    """A running S3 server of that kind; skips the test where MinIO has not been built."""
    minio = find_minio(load_local_settings().minio)
    if flavour == "minio" and minio is None:
        pytest.skip("no minio binary: `make minio` builds it")
    installation = prepare_installation(home, flavour, minio_available=minio is not None)
    with serving(s3_service(installation, settings_of(installation), minio), installation) as child:
        yield installation, child


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server; each caller gets a bucket of its own."""

    settings: Settings
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def new_bucket(self) -> ObjectStore:
        """An empty bucket that nobody else has."""
        store = connect_store(self.settings.model_copy(update={"s3_bucket": f"test-{next(self._numbers)}"}))
        store.ensure_bucket()
        return store


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running Postgres whose database `morphbatch` is migrated, has no rows, and is the template of all others.

    Its engines have the service's role, if nothing else is said.
    """

    installation: Installation
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @contextmanager
    def new_database(self, like: Engine | None = None) -> Iterator[Engine]:
        """A copy that nobody else has of the template, or of the database `like`; dropped at the end of the block."""
        if like is not None:
            like.dispose()  # a database that somebody is connected to is not copied
        with self._copy_of("morphbatch" if like is None else like.url.database, SERVICE) as engine:
            yield engine

    @contextmanager
    def empty_database(self) -> Iterator[Engine]:
        """A database without any migration, for its owner; dropped at the end of the block."""
        with self._copy_of("template0", OWNER) as engine:
            yield engine

    def url(self, role: str, engine: Engine) -> str:
        """Where another role logs in to the database of `engine`, which lets go of it."""
        engine.dispose()
        return self._url(role, engine.url.database)

    @contextmanager
    def as_owner(self, engine: Engine) -> Iterator[Session]:
        """A transaction of the owner in the database of `engine`, for what the service may not do."""
        owner = make_engine(self.url(OWNER, engine))
        try:
            with transaction(owner) as session:
                yield session
        finally:
            owner.dispose()

    def _url(self, role: str, database: str | None) -> str:
        url = make_url(self.installation.database_url(role))
        return url.set(database=database).render_as_string(hide_password=False)

    @contextmanager
    def _copy_of(self, template: str | None, role: str) -> Iterator[Engine]:
        name = f"test_{next(self._numbers)}"
        # A file copy takes half as long as a copy through the log.
        statement = "create database {} owner {} template {} strategy file_copy"
        self.administer(statement, name, OWNER, template)
        engine = make_engine(self._url(role, name))
        try:
            yield engine
        finally:
            engine.dispose()
            self.administer("drop database {} with (force)", name)

    def administer(self, statement: str, *names: str | None) -> None:
        """Run a statement as the superuser; each `{}` of it is a name."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.installation.ports["postgres"],
            user="postgres",
            password=self.installation.secrets["postgres_superuser"],
            dbname="postgres",
        )
        connection.autocommit = True
        try:
            connection.cursor().execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
        finally:
            connection.close()


@contextmanager
def migrated_postgres(home: Path) -> Iterator[Postgres]:
    """A Postgres with the migrations applied; it forgets its data if the machine fails, and is quicker for it."""
    installation = prepare_installation(home, "rclone", minio_available=False)
    service = postgres_service(installation)
    with serving(replace(service, command=(*service.command, "-c", "fsync=off")), installation):
        upgrade(installation.database_url(OWNER))
        yield Postgres(installation)
