"""A lab's role in SQL sees its own rows, and tries what it must not."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors
from sqlalchemy import text

from services.access.sql_role import LabNameTooLong, role_of, statements
from services.database.session import transaction
from services.intake.validation import BadBatchName
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres

VIEWS = (
    "batch_overview", "slide_result", "class_distribution", "specimen_distribution", "analysis_history", "cell",
)  # fmt: skip


@pytest.fixture
def roles(postgres: Postgres) -> Iterator[None]:
    """The roles of two labs, made as the command says."""
    names = []
    for lab in ("berlin", "oslo"):
        for line in statements(lab)[:-1]:
            postgres.administer(line.replace("{", "{{").replace("}", "}}"))
        postgres.administer("alter role {} password 'of-the-test'", role_of(lab))
        names.append(role_of(lab))
    yield
    for name in names:
        postgres.administer("drop role {}", name)


def cursor_of(postgres: Postgres, database: str | None, role: str) -> Any:
    connection = psycopg2.connect(
        host="127.0.0.1", port=postgres.installation.ports["postgres"], user=role, password="of-the-test",
        dbname=database,
    )  # fmt: skip
    connection.autocommit = True
    return connection.cursor()


def test_a_lab_reads_its_own_rows_and_nothing_else(full: Night, postgres: Postgres, roles: None) -> None:
    postgres.administer("grant connect on database {} to morphbatch_lab", full.engine.url.database)
    with transaction(full.engine) as session:  # a batch of the other lab, in the same database
        session.execute(text("insert into lab (code) values ('oslo')"))
        session.execute(
            text(
                "insert into batch (lab_id, batch_code, state, manifest_sha256, manifest_etag, received_on)"
                " select id, 'secret-night', 'complete', '0', '0', current_date from lab where code = 'oslo'"
            )
        )
        counts = {
            view: session.execute(text(f"select count(*) from reporting.{view} where lab = 'berlin'")).scalar_one()
            for view in VIEWS
        }
    assert all(counts.values())
    berlin, oslo = (cursor_of(postgres, full.engine.url.database, role_of(lab)) for lab in ("berlin", "oslo"))
    for view in VIEWS:
        berlin.execute(f"select count(*), min(lab), max(lab) from lab_reporting.{view}")
        assert berlin.fetchone() == (counts[view], "berlin", "berlin"), view
        berlin.execute(f"select count(*) from lab_reporting.{view} where lab = 'oslo' or lab <> 'berlin' or true")
        assert berlin.fetchone() == (counts[view],)
    oslo.execute("select batch_id from lab_reporting.batch_overview")
    assert oslo.fetchall() == [("secret-night",)]

    # What a query reports by an error, as of a division, is computed after the border.
    berlin.execute(
        "select count(*) from lab_reporting.batch_overview where 1 / (case lab when 'oslo' then 0 else 1 end) = 1"
    )
    assert berlin.fetchone() == (1,)
    for statement in (
        "set role lab_oslo",
        "set session authorization lab_oslo",
        "set role morphbatch_analyst",
        "select * from reporting.slide_result",
        "select reporting.wilson_low_pct(1, 2)",
        "select * from public.batch",
        "select * from public.api_token",
        "select * from public.audit_event",
        "select * from operations.outstanding",
        "create view lab_reporting.mine as select 1",
        "create or replace view lab_reporting.cell as select 1",
        "create function lab_reporting.mine() returns int language sql as 'select 1'",
        "update lab_reporting.batch_overview set lab = 'oslo'",
        "delete from lab_reporting.cell",
        "alter role lab_berlin rename to lab_oslo2",
        "select pg_read_file('postgresql.conf')",
        "copy (select 1) to program 'id'",
    ):
        with pytest.raises(
            (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState, errors.FeatureNotSupported)
        ):
            berlin.execute(statement)
    berlin.execute("set role morphbatch_lab")  # its group: the border asks who logged in
    berlin.execute("select distinct lab from lab_reporting.slide_result")
    assert berlin.fetchall() == [("berlin",)]
    for cursor in (berlin, oslo):
        cursor.connection.close()


def test_a_lab_cannot_fill_the_server(postgres: Postgres, roles: None) -> None:
    cursor = cursor_of(
        postgres, "morphbatch", role_of("berlin")
    )  # this one has privileges of its own, copies lack them
    for statement in ("create temporary table mine (id int)", "select lo_creat(-1)", "select pg_advisory_lock(1)"):
        with pytest.raises(errors.InsufficientPrivilege):
            cursor.execute(statement)
    cursor.connection.close()


def test_a_role_that_is_of_no_lab_sees_nothing(full: Night, postgres: Postgres) -> None:
    postgres.administer("grant connect on database {} to morphbatch_lab", full.engine.url.database)
    with transaction(full.engine) as session:  # a lab called like the end of another role's name
        session.execute(text("insert into lab (code) values ('lyst')"))
        session.execute(
            text(
                "insert into batch (lab_id, batch_code, state, manifest_sha256, manifest_etag, received_on)"
                " select id, 'n-1', 'complete', '0', '0', current_date from lab where code = 'lyst'"
            )
        )
    postgres.administer("create role xyz_lyst login in role morphbatch_lab password 'of-the-test'")
    try:
        cursor = cursor_of(postgres, full.engine.url.database, "xyz_lyst")
        cursor.execute("select count(*) from lab_reporting.batch_overview")
        assert cursor.fetchone() == (0,)
        cursor.connection.close()
    finally:
        postgres.administer("drop role xyz_lyst")


def test_a_lab_that_no_role_can_be_called_after_is_refused() -> None:
    assert role_of("n" * 59) == "lab_" + "n" * 59
    with pytest.raises(LabNameTooLong):
        role_of("n" * 60)
    for lab in ('x"; drop role postgres; --', "x y", "X", ""):
        with pytest.raises(BadBatchName):
            statements(lab)
