"""A worker refuses to start beside what it does not fit, as the operators' guide promises."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from migrations.run import downgrade, head_revision
from services.errors import ConfigurationError
from services.local.installation import OWNER, prepare_installation
from services.local.triton import find_environment, triton_server
from services.settings import Settings, load_settings
from services.storage import ObjectStore
from services.taxonomy import CLASS_NAMES
from tests.integration.servers import Postgres, S3Server, serving
from tests.places import CHECKOUT
from tests.small_release import build_small_release
from triton_models.layout.repository import lay_out_repository
from triton_models.layout.served_here import ServedHere
from worker.lifecycle import preflight


@contextmanager
def serving_release(home: Path, release: Path, classes: tuple[str, ...] = CLASS_NAMES) -> Iterator[str]:
    """The endpoint of a Triton that serves the release, and says that its classes are in this order."""
    installation = prepare_installation(home, "rclone", minio_available=False)
    repository = installation.home / "triton" / "repository"
    lay_out_repository(release, repository)
    for configuration in repository.glob("*/config.pbtxt"):
        said = configuration.read_text()
        assert ",".join(CLASS_NAMES) in said
        configuration.write_text(said.replace(",".join(CLASS_NAMES), ",".join(classes)))
    fusion = next(repository.glob("*/1/fusion.json"))
    said_of_fusion = json.loads(fusion.read_text())
    fusion.unlink()  # it may share its bytes with the release
    fusion.write_text(json.dumps({**said_of_fusion, "classes": classes}))
    with serving(triton_server(installation, find_environment(None)), installation):
        yield f"127.0.0.1:{installation.ports['triton_grpc']}"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two small networks."""
    folder = tmp_path_factory.mktemp("small") / "release"
    build_small_release(folder)
    return folder


@pytest.fixture(scope="module")
def triton_endpoint(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Triton that serves it."""
    with serving_release(tmp_path_factory.mktemp("triton"), small) as endpoint:
        yield endpoint


@pytest.fixture
def published(database: Engine, empty_bucket: ObjectStore, small: Path, tmp_path: Path) -> None:
    """The release is on record."""
    ServedHere(database, empty_bucket, tmp_path / "triton").registry.publish(small)


@pytest.fixture(autouse=True)
def environment(
    database: Engine, rclone: S3Server, empty_bucket: ObjectStore, triton_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The settings of a worker beside the test's servers. No broker is there, so that none takes any work."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MORPHBATCH_{name.upper()}", raising=False)
    for name, value in {
        "DATABASE_URL": database.url.render_as_string(hide_password=False),
        "BROKER_URL": "redis://:secret@127.0.0.1:9/0",
        "S3_ENDPOINT": rclone.settings.s3_endpoint,
        "S3_BUCKET": empty_bucket.bucket,
        "S3_ACCESS_KEY": rclone.settings.s3_access_key,
        "S3_SECRET_KEY": rclone.settings.s3_secret_key.get_secret_value(),
        "TRITON_ENDPOINT": triton_endpoint,
        "WEBHOOK_TOKEN": "secret",
    }.items():
        monkeypatch.setenv(f"MORPHBATCH_{name}", value)
    monkeypatch.delenv("MORPHBATCH_HOME", raising=False)
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.mark.usefixtures("published")
def test_what_fits_passes() -> None:
    preflight(takes_slides=True)


@pytest.mark.parametrize("takes_slides", [True, False])
def test_a_database_of_another_revision_is_refused(postgres: Postgres, database: Engine, takes_slides: bool) -> None:
    downgrade(postgres.url(OWNER, database), "0001")
    with pytest.raises(ConfigurationError, match=rf"revision .* {head_revision()}.*morphbatch migrate"):
        preflight(takes_slides=takes_slides)


def test_networks_of_an_unknown_release_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"serves release small-\w+, .* does not know.*release activate"):
        preflight(takes_slides=True)
    preflight(takes_slides=False)  # who takes no slides asks no networks


@pytest.mark.usefixtures("published")
def test_networks_of_another_class_order_are_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = (*CLASS_NAMES[1:], CLASS_NAMES[0])
    with serving_release(tmp_path / "other", small, order) as endpoint:
        monkeypatch.setenv("MORPHBATCH_TRITON_ENDPOINT", endpoint)
        load_settings.cache_clear()
        with pytest.raises(ConfigurationError, match=f"has the classes {', '.join(order)}"):
            preflight(takes_slides=True)


def test_the_worker_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    command = (sys.executable, "-m", "celery", "--app", "worker.app", "worker", "--queues", "slides")
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "the worker does not start: Triton serves release small-" in ended.stderr
