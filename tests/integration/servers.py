"""Object stores and a migrated database for the tests of storage and intake; import the fixtures you use."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from migrations.run import upgrade
from services.database.models import Base, ModelRelease
from services.database.session import make_engine, transaction
from services.local.child import Child, ServiceState
from services.local.installation import Installation, S3Flavour, prepare_installation
from services.local.object_store import find_minio, s3_service
from services.local.postgres import postgres_service
from services.local.service import Service
from services.settings import Settings
from services.storage import ObjectStore, connect_store


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
    deadline = time.monotonic() + 60
    while child.state is not ServiceState.READY:
        child.look()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{child.service.name}: {child.trouble}\n{child.log_tail()}")
        time.sleep(0.05)


def settings_of(installation: Installation) -> Settings:
    """The settings that point at this installation, and nothing of the machine's own."""
    values = {name.removeprefix("MORPHBATCH_").lower(): value for name, value in installation.settings().items()}
    return Settings.model_validate({**values, "home": installation.home})


@contextmanager
def s3_installation(home: Path, flavour: S3Flavour) -> Iterator[tuple[Installation, Child]]:
    """A running S3 server of that kind; skips the test where MinIO has not been built."""
    named = os.environ.get("MORPHBATCH_MINIO")
    minio = find_minio(Path(named) if named else None)
    if flavour == "minio" and minio is None:
        pytest.skip("no minio binary: `make minio` builds it")
    installation = prepare_installation(home, flavour, minio_available=minio is not None)
    with serving(s3_service(installation, settings_of(installation), minio), installation) as child:
        yield installation, child


@pytest.fixture(scope="module", params=["rclone", "minio"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An empty bucket on each of the two servers."""
    with s3_installation(tmp_path_factory.mktemp("s3"), request.param) as (installation, _):
        yield connect_store(settings_of(installation))


@pytest.fixture(scope="module")
def rclone_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An empty bucket on the embedded server."""
    with s3_installation(tmp_path_factory.mktemp("s3"), "rclone") as (installation, _):
        yield connect_store(settings_of(installation))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Postgres with the migrations applied and no rows."""
    installation = prepare_installation(tmp_path_factory.mktemp("postgres"), "rclone", minio_available=False)
    with serving(postgres_service(installation), installation):
        url = settings_of(installation).database_url
        upgrade(url)
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def engine(database: Engine) -> Engine:
    """The database with an active release and nothing else."""
    with transaction(database) as session:
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        session.execute(text(f"truncate {tables} restart identity cascade"))
        session.add(ModelRelease(id="r1", kind="untrained", active=True, document={}))
    return database


@pytest.fixture
def empty_bucket(rclone_store: ObjectStore) -> ObjectStore:
    """The embedded server's bucket without any object."""
    for found in list(rclone_store.list("")):
        rclone_store.delete(found.key)
    return rclone_store
