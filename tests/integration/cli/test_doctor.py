"""`morphbatch doctor` on a whole stack: well, and with services and records taken away."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from migrations.run import head_revision
from services.cli.doctor import Finding, examine
from services.database.session import make_engine
from services.smears.batch import BatchSpec, write_batch
from tests.conftest import Stack
from tests.waiting import wait_until


def findings_of(stack: Stack) -> dict[str, Finding]:
    """The findings by name."""
    return {finding.check: finding for finding in examine(stack.settings, stack.home)}


def test_everything_is_well_on_a_fresh_stack(stack: Stack) -> None:
    findings = findings_of(stack)
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert {"revision", "object store", "broker", "workers", "triton", "release", "class order"} <= findings.keys()


def test_what_is_down_fails_with_a_way_to_mend_it_and_the_rest_does_not(stack: Stack) -> None:
    stack.stop("triton")
    try:
        done = stack.run_cli("doctor", "--json")
    finally:
        stack.start()
    assert done.returncode == 1
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    failed = {check for check, finding in findings.items() if not finding["ok"]}
    assert failed == {"stack", "triton", "class order", "release", "answers"}
    assert "morphbatch up" in findings["triton"]["fix"]
    assert findings["release"]["found"] == "skipped: depends on class order"


@pytest.mark.parametrize(
    ("breaking", "mending", "check", "says"),
    [
        (
            "update alembic_version set version_num = '0001'",
            "update alembic_version set version_num = '{head}'",
            "revision",
            "0001",
        ),
        (
            "update model_release set active = false",
            "update model_release set active = true where created_at = (select min(created_at) from model_release)",
            "release",
            "no release",
        ),
    ],
)
def test_a_record_that_does_not_fit(stack: Stack, breaking: str, mending: str, check: str, says: str) -> None:
    assert stack.settings.migration_url
    engine = make_engine(stack.settings.migration_url)
    with engine.begin() as connection:
        connection.execute(text(breaking))
    try:
        found = findings_of(stack)[check]
    finally:
        with engine.begin() as connection:
            connection.execute(text(mending.format(head=head_revision())))
        engine.dispose()
    assert not found.ok
    assert says in found.found
    assert found.fix
    assert "morphbatch" in found.fix


def test_a_database_that_answers_and_takes_no_writes(stack: Stack) -> None:
    assert stack.settings.migration_url
    owner = make_engine(stack.settings.migration_url)
    with owner.begin() as connection:
        connection.execute(text("alter database morphbatch set default_transaction_read_only = on"))
    try:
        findings = findings_of(stack)
        requeued = stack.run_cli("requeue", "any-batch")
    finally:
        with owner.begin() as connection:
            connection.execute(text("alter database morphbatch reset default_transaction_read_only"))
        owner.dispose()
    assert findings["database"].ok
    assert not findings["database writes"].ok
    assert "takes no writes" in findings["database writes"].found
    assert requeued.stderr.count("\n") == 1, "one line"


def test_slides_that_wait_are_named_with_what_they_wait_for(stack: Stack, tmp_path: Path) -> None:
    write_batch(tmp_path, slides=1, fields_per_slide=1, seed=1, spec=BatchSpec(lab="waiting", batch_id="waiting"))
    assert stack.settings.migration_url
    owner = make_engine(stack.settings.migration_url)
    with owner.begin() as connection:
        connection.execute(
            text(
                "create function full_disk() returns trigger language plpgsql as $$ begin"
                " raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$"
            )
        )
        connection.execute(
            text("create trigger full_disk before insert on cell for each row execute function full_disk()")
        )
    try:
        assert stack.run_cli("submit", str(tmp_path)).returncode == 0
        told = ("database_full", "no disk space left")
        wait_until(lambda: all(words in findings_of(stack)["waiting slides"].found for words in told), what="doctor")
        wait_until(lambda: all(words in stack.run_cli("status").stdout for words in told), what="status")
    finally:
        with owner.begin() as connection:
            connection.execute(text("drop trigger full_disk on cell"))
            connection.execute(text("drop function full_disk"))
        owner.dispose()
    watched = stack.run_cli("watch", "waiting")
    assert watched.returncode == 0, "it went on by itself"
