"""The HTTP service for each test, over a database and a bucket of its own."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from services.storage import ObjectStore
from tests.integration.api.serving import Api, serving_api
from tests.integration.servers import S3Server


@pytest.fixture
def api(engine: Engine, empty_bucket: ObjectStore, rclone: S3Server) -> Iterator[Api]:
    """Over the embedded store, which knows no checksums."""
    with serving_api(engine, empty_bucket, rclone.settings) as served:
        yield served


@pytest.fixture
def api_on_minio(engine: Engine, minio: S3Server) -> Iterator[Api]:
    """Over MinIO."""
    with serving_api(engine, minio.new_bucket(), minio.settings) as served:
        yield served
