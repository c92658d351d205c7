"""`morphbatch sql` against a real Postgres: what the analyst may ask, how rows are printed, and psql itself."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.local.installation import ANALYST
from services.local.postgres import binaries
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres
from tests.places import CHECKOUT
from tests.wrong_input import fault_of, run

_VIEW = "select slide_id, state, cells, normal_pct from reporting.slide_result order by slide_id"


@pytest.fixture(autouse=True)
def urls(engine: Engine, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings point at the test's database; the analyst's URL is returned."""
    service = engine.url.render_as_string(hide_password=False)
    password = postgres.installation.secrets[ANALYST]
    analyst = engine.url.set(username=ANALYST, password=password).render_as_string(hide_password=False)
    monkeypatch.setenv("MORPHBATCH_HOME", str(tmp_path))
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", service)
    monkeypatch.setenv("MORPHBATCH_ANALYST_URL", analyst)
    return password


def test_rows_are_printed_as_a_table_as_json_and_as_csv(
    full: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(["sql", _VIEW, "--json"], monkeypatch, capsys)
    assert found.stderr == ""
    rows = json.loads(found.stdout)
    assert [row["state"] for row in rows] == ["done", "done", "quarantined", "insufficient"]
    assert list(rows[0]) == ["slide_id", "state", "cells", "normal_pct"]
    table = run(["sql", _VIEW], monkeypatch, capsys).stdout
    lines = list(csv.DictReader(io.StringIO(run(["sql", _VIEW, "--csv"], monkeypatch, capsys).stdout)))
    for row, line in zip(rows, lines, strict=True):
        assert (line["slide_id"], line["cells"]) == (row["slide_id"], str(row["cells"]))
        assert row["slide_id"] in table
    # Percent signs, colons and brackets mean nothing to us; arrays and bytes can be read.
    awkward = "select '[red]100%:x' as \"[b]a\", array[1.5, null] as b, '\\xff00'::bytea as c where 'a%' like 'a%'"
    assert json.loads(run(["sql", awkward, "--json"], monkeypatch, capsys).stdout) == [
        {"[b]a": "[red]100%:x", "b": ["1.5", None], "c": "ff00"}
    ]
    assert "[red]100%:x" in run(["sql", awkward], monkeypatch, capsys).stdout
    assert run(["sql", "set statement_timeout = '1s'"], monkeypatch, capsys).code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["select * from public.cell"], "permission denied"),
        (["select * from reporting.no_such_view"], "does not exist"),
        (["selct 1"], "syntax error"),
        (["create table mine (id int)"], "read-only|permission denied"),
        (["delete from batch", "--role=service"], "read-only"),
        (["update batch set state = 'complete'; commit", "--role=service"], "read-only"),
    ],
)
def test_what_may_not_be_asked_is_refused_in_postgres_words(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(["sql", *words], monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert re.search(says, outcome.stderr)
    assert "morphbatch migrate" not in outcome.stderr


def test_the_service_role_reads_the_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = run(["sql", "select id from model_release", "--role=service", "--json"], monkeypatch, capsys)
    assert json.loads(asked.stdout) == [{"id": "r1"}]


@pytest.mark.parametrize("on_path", [True, False], ids=["psql on PATH", "psql of the embedded Postgres"])
def test_without_a_query_it_is_psql_and_the_password_is_nowhere_to_be_read(
    urls: str, on_path: bool, tmp_path: Path
) -> None:
    path = f"{binaries()}:{os.environ['PATH']}" if on_path else "/nowhere"
    asked = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "sql"],
        input="select current_user as who;\n\\! tr '\\0' ' ' < /proc/$PPID/cmdline\n",
        env={**os.environ, "PATH": path}, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert "morphbatch_analyst" in asked.stdout
    assert urls not in asked.stdout + asked.stderr
