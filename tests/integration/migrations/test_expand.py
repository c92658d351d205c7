"""From version to version: a revision takes nothing from the code before, whose workers go on while it runs."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import migrations
from migrations.run import require_head, upgrade
from services.batches.closing import close_batch
from services.database.session import transaction
from services.errors import ConfigurationError
from services.local.installation import OWNER, SERVICE
from tests.integration.analysis.slides import run
from tests.integration.servers import Postgres, S3Server
from tests.places import CHECKOUT

VERSIONS = Path(migrations.__file__).parent / "versions"
MODULES = [import_module(f"migrations.versions.{path.stem}") for path in sorted(VERSIONS.glob("[0-9]*.py"))]
LATER = [module for module in MODULES if hasattr(module, "only_expands") or hasattr(module, "oldest_code")]

# Each of these must still be there after the revision, word for word.
KEPT = {
    "columns": "select table_schema || '.' || table_name || '.' || column_name || ' ' || udt_name"
    " || case when is_nullable = 'NO' then ' not null' else '' end from information_schema.columns"
    " where table_schema in ('public', 'reporting', 'operations')",
    "functions": "select oid::regprocedure || ' ' || prorettype::regtype from pg_proc"
    " where pronamespace in ('public'::regnamespace, 'reporting'::regnamespace)",
    "grants": "select concat_ws(' ', grantee, privilege_type, concat_ws('.', table_schema, table_name, column_name))"
    " from information_schema.column_privileges where grantee like 'morphbatch%' and grantee <> 'morphbatch_owner'",
}
# A column of an older table that an insert of the code before would have to name.
DEMANDED = (
    "select table_schema || '.' || table_name || '.' || column_name from information_schema.columns"
    " where table_schema = 'public' and is_nullable = 'NO' and column_default is null and is_identity = 'NO'"
)
# Rules and unique indexes of tables, with the columns that they look at. One that is replaced keeps its name.
RULES = (
    "select conrelid::regclass || '.' || conname, array(select attname from pg_attribute"
    " where attrelid = conrelid and attnum = any(conkey)) from pg_constraint where contype in ('c', 'u', 'x', 'f')"
    " and connamespace = 'public'::regnamespace union all"
    " select indrelid::regclass || '.' || indexrelid::regclass, array(select attname from pg_attribute"
    " where attrelid = indrelid and attnum = any(indkey::smallint[])) from pg_index join pg_class on oid = indexrelid"
    " where indisunique and relnamespace = 'public'::regnamespace"
)


def everything(engine: Engine) -> tuple[dict[str, set[str]], set[str], dict[str, list[str]]]:
    with transaction(engine) as session:
        kept = {what: set(session.scalars(text(query))) for what, query in KEPT.items()}
        demanded = set(session.scalars(text(DEMANDED)))
        rules = dict(session.execute(text(RULES)).all())
    engine.dispose()
    return kept, demanded, rules


def takes_away(before: object, after: object, unused: tuple[str, ...]) -> list[str]:
    """What the code of before misses, or must do otherwise, after a revision."""
    (kept, demanded, rules), (kept_after, demanded_after, rules_after) = before, after  # type: ignore[misc]
    columns = {column.split()[0] for column in kept["columns"]}
    tables = {column.rpartition(".")[0] for column in columns}
    found = [f"{what}: {name}" for what in KEPT for name in sorted(kept[what] - kept_after[what])]
    found += [f"must be given: {c}" for c in sorted(demanded_after - demanded) if c.rpartition(".")[0] in tables]
    found += [
        f"stricter: {name}"
        for name in sorted(rules_after.keys() - rules.keys())
        if any(f"public.{name.partition('.')[0]}.{column}" in columns for column in rules_after[name])
    ]
    return [line for line in found if not any(f".{name}" in line for name in unused)]


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Engine]:
    with postgres.empty_database() as engine:
        yield engine


def url_of(engine: Engine) -> str:
    engine.dispose()
    return engine.url.render_as_string(hide_password=False)


def test_later_revisions_take_nothing_from_the_code_before(empty: Engine) -> None:
    for module in LATER:
        upgrade(url_of(empty), module.down_revision)
        before = everything(empty)
        upgrade(url_of(empty), module.revision)
        assert takes_away(before, everything(empty), getattr(module, "unused", ())) == [], module.__name__


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("alter table batch drop column close_at", "columns: public.batch.close_at timestamptz"),
        ("alter table lab rename column code to name", "columns: public.lab.code varchar not null"),
        ("alter table slide alter column specimen drop not null", "columns: public.slide.specimen varchar not null"),
        ("alter table lab add region text not null", "must be given: public.lab.region"),
        ("alter table lab add check (code <> 'x')", "stricter: lab.lab_code_check"),
        ("create unique index once on field (sha256)", "stricter: field.once"),
        ("revoke insert on field from morphbatch_service", "grants: morphbatch_service INSERT public.field.id"),
        ("drop function reporting.wilson_low_pct cascade", "functions: reporting.wilson_low_pct"),
    ],
)
def test_what_is_taken_away_is_found(postgres: Postgres, database: Engine, statement: str, told: str) -> None:
    before = everything(database)
    with postgres.as_owner(database) as session:
        session.execute(text(statement))
    assert any(line.startswith(told) for line in takes_away(before, everything(database), ()))


def test_code_starts_on_a_later_revision_only_if_that_says_so(postgres: Postgres, database: Engine) -> None:
    with postgres.as_owner(database) as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    for said, starts in (("works with code of 0026 and later", True), ("works with code of 9999 and later", False)):
        with postgres.as_owner(database) as session:
            session.execute(text(f"comment on table alembic_version is '{said}'"))
        if starts:
            require_head(database)
        else:
            with pytest.raises(ConfigurationError, match="revision 9999"):
                require_head(database)


# Run by the code of the revision before, which has these helpers too: a batch after the other until it is told to stop.
OLD_WORKER = """
import sys
from pathlib import Path
import numpy as np
from sqlalchemy import text
from services.batches.closing import close_batch
from services.database.session import make_engine, transaction
from services.smears.field import FieldSpec, draw_field
from services.settings import Settings
from services.storage import connect_store
from tests.integration.analysis.slides import encode, one, run, submit
settings, stop = Settings(), Path(sys.argv[1])
engine, store = make_engine(settings.database_url), connect_store(settings)
field = encode(draw_field(np.random.default_rng(3), FieldSpec(um_per_px=0.1, cells=6, bacteria=0)).pixels)
number = 0
while not stop.exists():
    number += 1
    ids = submit(engine, store, {name: {"f.png": field} for name in "ab"}, batch_id=f"night-{number}")
    for analysis_id in ids:
        closing = run(engine, store, analysis_id)
    close_batch(engine, store, closing)
    print(number, flush=True)
submit(engine, store, {name: {"f.png": field} for name in "ab"}, batch_id="left")
"""


def code_before(revision: str, folder: Path) -> Path:
    """The checkout as it was before `revision` came; skips where there is no history of it."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no history of this checkout: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    [file] = VERSIONS.glob(f"{revision}_*.py")
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(file)).decode().split()
    if not added:
        pytest.skip(f"{file.name} is not committed yet")
    with tarfile.open(fileobj=BytesIO(git("archive", f"{added[-1]}^"))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_worker_of_the_revision_before_goes_on_while_the_database_is_migrated(
    postgres: Postgres, empty: Engine, rclone: S3Server, tmp_path: Path
) -> None:
    head = MODULES[-1]
    old = code_before(head.revision, tmp_path / "before")
    upgrade(url_of(empty), head.down_revision)
    with transaction(empty) as session:
        session.execute(
            text("insert into model_release (id, kind, active, document) values ('r1', 'untrained', true, '{}')")
        )
    store, stop = rclone.new_bucket(), tmp_path / "stop"
    s3 = rclone.settings
    environment = {
        "MORPHBATCH_DATABASE_URL": postgres.url(SERVICE, empty), "MORPHBATCH_S3_BUCKET": store.bucket,
        "MORPHBATCH_S3_ENDPOINT": s3.s3_endpoint, "MORPHBATCH_S3_ACCESS_KEY": s3.s3_access_key,
        "MORPHBATCH_S3_SECRET_KEY": s3.s3_secret_key.get_secret_value(), "PYTHONPATH": str(old),
    }  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-c", OLD_WORKER, str(stop)],
        cwd=old, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "1\n"
        upgrade(postgres.url(OWNER, empty), "head")
        reached = int(worker.stdout.readline())
        while int(worker.stdout.readline()) < reached + 1:
            pass
        stop.touch()
        worker.stdout.read()
    assert worker.returncode == 0
    with transaction(empty) as session:
        waiting = session.scalars(text("select id from analysis where state = 'queued' order by id")).all()
    assert len(waiting) == 2, "left by the code before"
    closing = [run(empty, store, analysis_id) for analysis_id in waiting]
    assert closing[-1] is not None
    close_batch(empty, store, closing[-1])
    with transaction(empty) as session:
        batches = session.execute(text("select state, slides_done, cells from reporting.batch_overview")).all()
    assert len(batches) >= 4
    assert set(batches) == {("complete", 2, batches[0].cells)}
