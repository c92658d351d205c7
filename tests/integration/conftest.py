"""One Postgres and one S3 server of each kind for the whole session; a test gets a database and a bucket of its own."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine

from services.database.models import ModelRelease
from services.database.session import transaction
from services.local.settings import settings_of
from services.smears.field import FieldSpec, draw_field
from services.storage import ObjectStore
from tests.integration.reporting.reporting_night import Night, fill
from tests.integration.servers import Postgres, S3Server, migrated_postgres, s3_installation


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The session's Postgres."""
    with migrated_postgres(tmp_path_factory.mktemp("postgres für alle")) as running:
        yield running


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The session's embedded S3 server."""
    with s3_installation(tmp_path_factory.mktemp("rclone für alle"), "rclone") as (installation, _):
        yield S3Server(settings_of(installation))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The session's MinIO."""
    with s3_installation(tmp_path_factory.mktemp("minio für alle"), "minio") as (installation, _):
        yield S3Server(settings_of(installation))


@pytest.fixture(scope="module", params=["rclone", "minio"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """A bucket on each of the two servers, one for the tests of a module."""
    server: S3Server = request.getfixturevalue(request.param)
    return server.new_bucket()


@pytest.fixture
def empty_bucket(rclone: S3Server) -> ObjectStore:
    """An empty bucket on the embedded server."""
    return rclone.new_bucket()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Engine]:
    """A migrated database without rows."""
    with postgres.new_database() as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    """A database with an active release and nothing else."""
    with transaction(database) as session:
        session.add(ModelRelease(id="r1", kind="untrained", active=True, document={}))
    return database


@pytest.fixture(scope="session")
def good() -> NDArray[np.uint8]:
    """A drawn field, RGB, at 0.1 µm/px."""
    return draw_field(np.random.default_rng(3), FieldSpec(um_per_px=0.1, cells=6, bacteria=0)).pixels


@pytest.fixture
def night(engine: Engine, empty_bucket: ObjectStore) -> Night:
    """A batch without slides, for the tests of reports and views."""
    return Night(engine, empty_bucket)


@pytest.fixture
def full(night: Night) -> Night:
    """Two replicates of a specimen, a quarantined slide, and one with few cells."""
    return fill(night)
