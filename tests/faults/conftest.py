"""The large networks, so that faults meet slides at work, and a night for each test."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.database.session import make_engine
from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec
from services.storage import connect_store
from tests.conftest import Stack
from tests.drawn_night import Night, with_own_manifest
from triton_models.untrained.grow import build_untrained


def cli(stack: Stack, *arguments: str) -> str:
    done = stack.run_cli(*arguments, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def large_networks(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The untrained release on crops of 192 px: slides last long enough for a fault to meet them."""
    (shipped,) = (row["id"] for row in json.loads(cli(stack, "release", "list", "--json")) if row["active"])
    folder = tmp_path_factory.mktemp("large") / "untrained"
    build_untrained(folder)
    cli(stack, "release", "install", str(folder))
    yield
    cli(stack, "release", "activate", shipped)


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    engine = make_engine(stack.settings.database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five slides of two fields, drawn once."""
    folder = tmp_path_factory.mktemp("drawn") / "night"
    spec = BatchSpec(field=FieldSpec(um_per_px=0.12, cells=8))
    write_batch(folder, slides=5, fields_per_slide=2, seed=7, spec=spec)
    return folder


@pytest.fixture
def night(stack: Stack, engine: Engine, drawn: Path, request: pytest.FixtureRequest) -> Night:
    """A night that nobody has uploaded yet, called after the test."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:50]
    folder = with_own_manifest(drawn, drawn.parent / name, "faults", name)
    return Night(engine, connect_store(stack.settings), folder, "faults", name)
