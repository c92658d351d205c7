"""`morphbatch doctor` on a whole stack: well, and with services and records taken away."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from services.database.session import make_engine
from tests.conftest import Stack


def examine(stack: Stack) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the findings by name."""
    done = stack.run_cli("doctor", "--json")
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_everything_is_well_on_a_fresh_stack(stack: Stack) -> None:
    code, findings = examine(stack)
    assert [finding for finding in findings.values() if not finding["ok"]] == []
    assert code == 0
    assert {"revision", "object store", "broker", "workers", "triton", "release", "class order"} <= findings.keys()


def test_what_is_down_fails_with_a_way_to_mend_it_and_the_rest_does_not(stack: Stack) -> None:
    stack.stop("triton", "control")
    try:
        code, findings = examine(stack)
    finally:
        stack.start()
    assert code == 1
    failed = {check for check, finding in findings.items() if not finding["ok"]}
    assert failed == {"stack", "workers", "triton", "class order", "release"}
    assert "control" in findings["workers"]["found"]
    assert "morphbatch up" in findings["triton"]["mend"]
    assert findings["release"]["found"] == "not looked at without: class order"


@pytest.mark.parametrize(
    ("breaking", "mending", "check", "says"),
    [
        (
            "update alembic_version set version_num = '0001'",
            "update alembic_version set version_num = '{head}'",
            "revision",
            "0001",
        ),
        ("update model_release set active = false", "update model_release set active = true", "release", "no release"),
    ],
)
def test_a_record_that_does_not_fit(stack: Stack, breaking: str, mending: str, check: str, says: str) -> None:
    from migrations.run import head_revision

    engine = make_engine(stack.settings.database_url)
    with engine.begin() as connection:
        connection.execute(text(breaking))
    try:
        code, findings = examine(stack)
    finally:
        with engine.begin() as connection:
            connection.execute(text(mending.format(head=head_revision())))
        engine.dispose()
    assert code == 1
    assert not findings[check]["ok"]
    assert says in findings[check]["found"]
    assert "morphbatch" in findings[check]["mend"]
