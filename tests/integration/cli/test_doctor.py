"""`morphbatch doctor` on a whole stack: well, and with services and records taken away."""

import json

import pytest
from sqlalchemy import text

from migrations.run import head_revision
from services.cli.doctor import Finding, examine
from services.database.session import make_engine
from tests.conftest import Stack


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
