"""Services that are down, databases of another version, and ids that nobody has: exit code 2 and one message."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from services.database.session import make_engine
from services.local.installation import ANALYST
from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec
from tests.integration.servers import Postgres
from tests.small_release import build_small_release
from tests.wrong_input import arguments, fault_of, run

CLOSED = {
    "MORPHBATCH_DATABASE_URL": "postgresql+psycopg2://morphbatch:hunter2@127.0.0.1:1/morphbatch",
    "MORPHBATCH_BROKER_URL": "redis://:hunter2@127.0.0.1:1/0",
    "MORPHBATCH_S3_ENDPOINT": "http://127.0.0.1:1",
    "MORPHBATCH_TRITON_ENDPOINT": "127.0.0.1:1",
    "MORPHBATCH_API_PORT": "1",
}

# What asks the database, with the id of something that is not in it.
ASKING = {
    "watch": {"batch": "night-404"},
    "requeue": {"batch": "night-404"},
    "void": {"batch": "night-404", "why": "sent twice"},
    "report": {"batch": "night-404"},
    "release reapply": {"release": "release-404", "since": "2026-01-01"},
    "release activate": {"release_id": "release-404"},
    "release derive": {"release_id": "release-404", "fusion": "{fusion}", "folder": "{new}"},
}


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MORPHBATCH_HOME", str(tmp_path / "home"))
    for name, value in CLOSED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("places")
    spec = BatchSpec(field=FieldSpec(64, 64, 0.1, cells=0))
    write_batch(base / "slides", slides=1, fields_per_slide=1, seed=1, spec=spec)
    (base / "fusion.json").write_text("{}")
    build_small_release(base / "release")
    return {"slides": str(base / "slides"), "release": str(base / "release"), "fusion": str(base / "fusion.json")}


def filled(given: dict[str, str], places: dict[str, str], new: Path) -> dict[str, str]:
    return {name: value.format(**places, new=new) for name, value in given.items()}


@pytest.mark.parametrize(
    ("command", "given"),
    [
        *ASKING.items(),
        ("migrate", {}),
        ("submit", {"folder": "{slides}", "lab": "berlin", "um_per_px": "0.1"}),
        ("evaluate service", {"folder": "{slides}"}),
        ("release list", {}),
        ("release install", {}),
        ("release publish", {"folder": "{release}"}),
    ],
)
def test_services_that_are_down(
    command: str,
    given: dict[str, str],
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments(command, filled(given, places, tmp_path / "new"))
    outcome = run(words, monkeypatch, capsys)
    outcome = replace(outcome, stderr=outcome.stderr.replace("left out: truth.jsonl: not an image\n", ""))
    assert fault_of(outcome) is None
    assert "127.0.0.1:1" in outcome.stderr or "port 1 " in outcome.stderr or "port=1" in outcome.stderr
    assert "hunter2" not in outcome.stderr


def test_the_doctor_lists_what_is_down(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(["doctor"], monkeypatch, capsys)
    assert outcome.code == 1
    for check in ("database", "object store", "broker", "triton", "http service"):
        assert f"FAIL {check}:" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert "hunter2" not in outcome.stdout


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[str]:
    """A database without a table."""
    with postgres.empty_database() as empty:
        yield empty.url.render_as_string(hide_password=False)


@pytest.mark.parametrize("command", [*ASKING, "release list", "release install"])
def test_a_database_that_is_not_migrated(
    command: str,
    empty_database: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", empty_database)
    given = filled(ASKING.get(command, {}), places, tmp_path / "new")
    outcome = run(arguments(command, given), monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "run `morphbatch migrate`" in outcome.stderr


@pytest.mark.parametrize("command", ASKING)
def test_an_id_that_nobody_has(
    command: str,
    engine: Engine,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    outcome = run(arguments(command, filled(ASKING[command], places, tmp_path / "new")), monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "404" in outcome.stderr


def test_a_database_of_a_newer_version(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = make_engine(empty_database)
    with newer.begin() as connection:
        connection.execute(text("create table alembic_version (version_num varchar(32) not null)"))
        connection.execute(text("insert into alembic_version values ('9999')"))
    newer.dispose()
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", empty_database)
    outcome = run(["migrate"], monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "9999" in outcome.stderr


def test_a_role_without_rights(
    postgres: Postgres, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", postgres.url(ANALYST, engine))
    outcome = run(["watch", "night-1"], monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "name a role in MORPHBATCH_DATABASE_URL that may read it" in outcome.stderr
