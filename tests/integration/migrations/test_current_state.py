"""The revisions, one after the other, come to the current state, and each can be taken back."""

import difflib
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import migrations
from migrations.current import create_current
from migrations.run import downgrade, upgrade
from services.database.session import transaction
from services.local.postgres import binaries
from tests.integration.servers import Postgres

REVISIONS = sorted(path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))
REFERENCE = ("reporting.morphology_class", "reporting.measure")


@pytest.fixture
def migrated(postgres: Postgres) -> Iterator[Engine]:
    """An empty database to be migrated."""
    with postgres.empty_database() as engine:
        yield engine


@pytest.fixture
def current(postgres: Postgres) -> Iterator[Engine]:
    """Another, for the current state."""
    with postgres.empty_database() as engine:
        yield engine


def url_of(engine: Engine) -> str:
    engine.dispose()  # nothing of ours may hold a lock that a migration waits for
    return engine.url.render_as_string(hide_password=False)


def schema_of(engine: Engine) -> list[str]:
    """Everything but rows, as pg_dump writes it; the note of the revision left out."""
    url = engine.url
    dumped = subprocess.run(
        [
            str(binaries() / "pg_dump"), "--schema-only", "--create", "--restrict-key=none",
            "--exclude-table=alembic_version",
            "--host", str(url.host), "--port", str(url.port), "--username", str(url.username), str(url.database),
        ],
        env={**os.environ, "PGPASSWORD": str(url.password)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = dumped.stdout.replace(str(url.database), "DATABASE").splitlines()
    # Grants on one thing stand in the order in which they were given, which says nothing.
    runs = groupby(lines, key=lambda line: line.startswith("GRANT "))
    return [line for grants, run in runs for line in (sorted(run) if grants else run)]


def difference(found: list[str], wanted: list[str]) -> str:
    """As `diff` shows it: what is lacking with +, what is too much with -."""
    return "\n".join(difflib.unified_diff(found, wanted, "found", "wanted", n=6, lineterm=""))


def as_read_again(schema: list[str]) -> list[str]:
    """A view made of Postgres' own text of it means the same, and has casts and brackets in other places."""
    return [re.sub(r"::(character varying|text)(\[\])?|[()]", "", line) for line in schema]


def test_migrated_step_by_step_is_the_current_state(
    migrated: Engine,
    current: Engine,
) -> None:
    for revision in REVISIONS:
        upgrade(url_of(migrated), revision)
    with transaction(current) as session:
        create_current(session.connection())
        session.execute(text("select make_cell_partitions(current_date, 3)"))
    lacking = difference(schema_of(migrated), schema_of(current))
    assert not lacking, f"what the revisions lack (+) or have too much (-):\n{lacking}"
    with transaction(migrated) as theirs, transaction(current) as ours:
        for table in REFERENCE:
            rows = text(f"select * from {table} order by 1")
            assert theirs.execute(rows).all() == ours.execute(rows).all(), table


def test_each_revision_can_be_taken_back(migrated: Engine) -> None:
    before = [schema_of(migrated)]
    for revision in REVISIONS:
        upgrade(url_of(migrated), revision)
        before.append(schema_of(migrated))
    for revision in [*reversed(REVISIONS[:-1]), "base"]:
        before.pop()
        downgrade(url_of(migrated), revision)
        left = difference(as_read_again(schema_of(migrated)), as_read_again(before[-1]))
        assert not left, f"after going back to {revision}:\n{left}"
