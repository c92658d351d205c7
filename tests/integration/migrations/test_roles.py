"""What the roles may do: each logs in with its own password and tries what it must not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import text

from migrations.run import upgrade
from services.database.faults import DatabaseRefused
from services.local.installation import ANALYST, OWNER, SERVICE
from tests.integration.servers import Postgres

# The database that the stack itself would have: it has privileges of its own, which copies of it lack.
DATABASE = "morphbatch"


@contextmanager
def logged_in(postgres: Postgres, role: str, database: str = DATABASE) -> Iterator[Any]:
    """A cursor of the role."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=postgres.installation.ports["postgres"],
        user=role,
        password=postgres.installation.secrets[role],
        dbname=database,
    )
    try:
        yield connection.cursor()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def analyst(postgres: Postgres) -> Iterator[Any]:
    """The analyst's cursor."""
    with logged_in(postgres, ANALYST) as cursor:
        yield cursor


@pytest.fixture(scope="module")
def service(postgres: Postgres) -> Iterator[Any]:
    """The service's cursor."""
    with logged_in(postgres, SERVICE) as cursor:
        yield cursor


def must_be_refused(cursor: Any, statement: str) -> None:
    cursor.connection.autocommit = True  # some of them do not run within a transaction
    try:
        with pytest.raises(InsufficientPrivilege):
            cursor.execute(statement)
    finally:
        cursor.connection.autocommit = False


def rows(cursor: Any, statement: str) -> list[Any]:
    cursor.execute(statement)
    found: list[Any] = cursor.fetchall()
    cursor.connection.rollback()
    return found


# Refused to whoever is not a superuser.
ESCALATIONS = {
    "become the owner": f"set role {OWNER}",
    "become the superuser": "set role postgres",
    "log in as the owner": f"set session authorization {OWNER}",
    "be made a superuser": "alter role current_user superuser",
    "be made a member": f"grant {OWNER} to current_user",
    "give the owner a password": f"alter role {OWNER} password 'x'",
    "create a role": "create role mine login superuser",
    "create a database": "create database mine",
    "create an extension": "create extension vector schema reporting",
    "create a tablespace": "create tablespace mine location '/tmp'",
    "create an event trigger": "create event trigger mine on ddl_command_start execute function pg_catalog.now()",
    "create a publication": "create publication mine",
    "create a subscription": "create subscription mine connection 'dbname=x' publication y",
    "create a foreign server": "create foreign data wrapper mine",
    "take the schema": "alter schema public owner to current_user",
    "take the function": "alter function public.make_cell_partitions(date, integer) owner to current_user",
    "open the function's path": "alter function public.make_cell_partitions(date, integer) set search_path = pg_temp",
    "replace a view": "create or replace view reporting.release as select 1",
    "drop a view": "drop view reporting.release",
    "comment on a view": "comment on view reporting.release is 'mine'",
    "read a file": "select pg_read_file('postgresql.conf')",
    "read a binary file": "select pg_read_binary_file('PG_VERSION')",
    "list a folder": "select pg_ls_dir('.')",
    "look for a file": "select pg_stat_file('PG_VERSION')",
    "read a file by COPY": "copy reporting.measure from '/etc/passwd'",
    "write a file": "copy (select 1) to '/tmp/mine'",
    "run a program": "copy (select 1) to program 'id'",
    "import a large object": "select lo_import('/etc/passwd')",
    "export a large object": "select lo_export(1, '/tmp/mine')",
    "create a large object": "select lo_creat(-1)",
    "create a large object by number": "select lo_create(0)",
    "create a large object of bytes": "select lo_from_bytea(0, 'x')",
    "open a large object": "select lo_open(1, 262144)",
    "get a large object": "select lo_get(1)",
    "put a large object": "select lo_put(1, 0, 'x')",
    "read all large objects": "select * from pg_largeobject",
    "read passwords": "select rolpassword from pg_authid",
    "read statistics of all columns": "select * from pg_statistic",
    "read the folder's name": "show data_directory",
    "configure the server": "alter system set fsync = off",
    "load its configuration": "select pg_reload_conf()",
    "log all statements": "set log_statement = 'all'",
    "preload a library": "set session_preload_libraries = 'mine'",
    "load a library": "load '/tmp/mine.so'",
    "switch triggers off": "set session_replication_role = 'replica'",
    "make a replication slot": "select pg_create_physical_replication_slot('mine')",
    "fill the log": "select pg_logical_emit_message(false, 'x', 'y')",
    "switch the log": "select pg_switch_wal()",
    "write to the disk at will": "set temp_file_limit = -1",
    "end others": "select pg_terminate_backend(pid) from pg_stat_activity"
                  " where usename = 'postgres' or usename is null and backend_type <> 'client backend'",
}  # fmt: skip

ANALYST_MUST_NOT = {
    **{f"read {table}": f"select * from public.{table}" for table in ("cell", "batch", "audit_event", "review")},
    "read the revision": "select * from public.alembic_version",
    "read a sequence": "select last_value from public.batch_id_seq",
    "count a sequence up": "select nextval('public.batch_id_seq')",
    "become the service": f"set role {SERVICE}",
    "make partitions": "select public.make_cell_partitions('2031-05-01', 1)",
    "change a reference table": "update reporting.measure set who_low = 0",
    "add to a reference table": "insert into reporting.measure values ('mine', 99, 'x', 'x')",
    "empty a reference table": "truncate reporting.measure",
    "delete by a view": "delete from reporting.release",
    "lock rows": "select * from reporting.measure for update",
    "lock a table": "do $$ begin lock table reporting.measure in share mode; end $$",
    "lock a view's tables": "do $$ begin lock table reporting.slide_result in access exclusive mode; end $$",
    "create a table": "create table reporting.mine (id int)",
    "create a table in public": "create table public.mine (id int)",
    "create a temporary table": "create temporary table mine (id int)",
    "create a temporary view": "create temporary view mine as select 1",
    "create a temporary sequence": "create temporary sequence mine",
    "create a temporary function": "create function pg_temp.mine() returns int language sql as 'select 1'",
    "create a temporary domain": "create domain pg_temp.date as pg_catalog.date",
    "create a view": "create view reporting.mine as select 1",
    "create a function": "create function reporting.mine() returns int language sql as 'select 1'",
    "create a function in public": "create function public.mine() returns int language sql as 'select 1'",
    "create a type": "create type public.mine as enum ('x')",
    "create a schema": "create schema mine",
    "keep rows by select into": "select 1 as x into temporary table mine",
    "stop migrations": "select pg_advisory_lock(1834971760)",
    "stop the closing of batches": "select pg_try_advisory_xact_lock(1)",
}

SERVICE_MUST_NOT = {
    "become the analyst": f"set role {ANALYST}",
    "create a table": "create table public.mine (id int)",
    "create a table of the views' schema": "create table reporting.mine (id int)",
    "create a function": "create function public.mine() returns int language sql as 'select 1'",
    "create a schema": "create schema mine",
    "drop a table": "drop table public.review",
    "change a table": "alter table public.batch add column mine int",
    "empty a table": "truncate public.cell",
    "index a table": "create index on public.batch (state)",
    "switch a constraint's trigger off": "alter table public.slide disable trigger all",
    "add a trigger": "create trigger mine before insert on public.batch execute function tsvector_update_trigger()",
    "detach a partition": "alter table public.cell detach partition public.cell_default",
    "change what was audited": "update public.audit_event set detail = '{}'",
    "delete what was audited": "delete from public.audit_event",
    "change a class afterwards": "update public.cell set class_index = 0",
    "delete a batch": "delete from public.batch",
    "delete a lab": "delete from public.lab",
    "delete a release": "delete from public.model_release",
    "write a review": "insert into public.review (analysis_id, number, reviewer, class_index) values (1, 1, 'x', 0)",
    "change a reference table": "update reporting.measure set who_low = 0",
    "change the revision": "update public.alembic_version set version_num = '0001'",
}  # fmt: skip


@pytest.mark.parametrize("statement", [*ESCALATIONS.values(), *ANALYST_MUST_NOT.values()],
                         ids=[*ESCALATIONS, *ANALYST_MUST_NOT])  # fmt: skip
def test_the_analyst_is_refused_to(analyst: Any, statement: str) -> None:
    must_be_refused(analyst, statement)


@pytest.mark.parametrize("statement", [*ESCALATIONS.values(), *SERVICE_MUST_NOT.values()],
                         ids=[*ESCALATIONS, *SERVICE_MUST_NOT])  # fmt: skip
def test_the_service_is_refused_to(service: Any, statement: str) -> None:
    must_be_refused(service, statement)


def test_the_analyst_reads_every_view(analyst: Any) -> None:
    relations = rows(analyst, "select relname from pg_class where relnamespace = 'reporting'::regnamespace"
                              " and relkind in ('v', 'r')")  # fmt: skip
    assert len(relations) > 12
    for (relation,) in relations:
        rows(analyst, f"select * from reporting.{relation} limit 1")
    assert rows(analyst, "select reporting.wilson_low_pct(8, 200)")[0][0] == pytest.approx(2.04, abs=0.01)


def test_nobody_sees_what_others_ask(postgres: Postgres, analyst: Any) -> None:
    with logged_in(postgres, SERVICE) as busy:
        busy.execute("select 'of a patient'")
        seen = rows(analyst, "select query from pg_stat_activity where usename = 'morphbatch_service'")
        assert seen
        assert set(seen) == {("<insufficient privilege>",)}


@pytest.mark.parametrize("role", [OWNER, SERVICE, ANALYST])
@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_no_role_gets_into_another_database(postgres: Postgres, role: str, database: str) -> None:
    with (
        pytest.raises(psycopg2.OperationalError, match="permission denied for database"),
        logged_in(postgres, role, database),
    ):
        pass  # pragma: no cover


@pytest.mark.parametrize("role", [SERVICE, ANALYST])
def test_what_is_read_and_written_belongs_to_neither(postgres: Postgres, role: str) -> None:
    with logged_in(postgres, OWNER) as owner:
        owned = f"select count(*) from pg_shdepend where refobjid = '{role}'::regrole and deptype = 'o'"
        assert rows(owner, owned) == [(0,)]
        powers = "rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls"
        assert rows(owner, f"select {powers} from pg_roles where rolname in ('{role}', '{OWNER}')") == [(False,)] * 2
        assert rows(owner, f"select roleid::regrole from pg_auth_members where member = '{role}'::regrole") == []


def test_the_analyst_has_no_right_in_the_tables_schema(postgres: Postgres) -> None:
    with logged_in(postgres, OWNER) as owner:
        any_right = "select, insert, update, delete, truncate, references, trigger"
        within = "relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        tables = f"select oid::regclass from pg_class where {within}"
        assert len(rows(owner, tables)) > 12
        assert rows(owner, f"{tables} and has_table_privilege('{ANALYST}', oid, '{any_right}')") == []


def test_the_scaler_reads_what_is_outstanding_and_nothing_else(postgres: Postgres) -> None:
    with logged_in(postgres, OWNER) as owner:
        any_right = "select, insert, update, delete, truncate, references, trigger"
        of_ours = (
            "relnamespace in (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')"
        )
        granted = f"select oid::regclass::text from pg_class where {of_ours} and relkind in ('r', 'p', 'v')"
        readable = rows(owner, f"{granted} and has_table_privilege('morphbatch_scaler', oid, '{any_right}')")
        assert sorted(readable) == [
            ("operations.outstanding",), ("operations.outstanding_slide",), ("operations.worker_speed",),
        ]  # fmt: skip
        schemas = "select nspname::text from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
        usable = rows(owner, f"{schemas} and has_schema_privilege('morphbatch_scaler', oid, 'usage')")
        assert usable == [("operations",)]
        assert rows(owner, "select has_database_privilege('morphbatch_scaler', current_database(), 'connect')") == [
            (True,)
        ]


def test_partitions_are_made_with_the_owners_rights_and_nothing_of_the_callers(service: Any) -> None:
    # A type of the caller's that is found before Postgres' own runs the caller's code as the owner.
    service.execute(
        "create function pg_temp.run(anything text) returns boolean language plpgsql as"
        " $$ begin raise exception 'ran as %', current_user; end $$;"
        "create domain pg_temp.date as pg_catalog.date check (pg_temp.run(value::text));"
        "create temporary table cell (received_on pg_catalog.date) partition by range (received_on);"
        "create temporary table cell_2031_05 (received_on pg_catalog.date);"
        "select public.make_cell_partitions('2031-05-01', 1);"
        "select inhparent::regclass::text, relowner::regrole::text from pg_inherits"
        " join pg_class on pg_class.oid = inhrelid where relname = 'cell_2031_05'"
    )
    made = service.fetchall()
    service.connection.rollback()
    assert made == [("public.cell", OWNER)]


def test_every_function_with_its_owners_rights_has_a_closed_path_and_named_callers(postgres: Postgres) -> None:
    with logged_in(postgres, OWNER) as owner:
        ours = "pronamespace in ('public'::regnamespace, 'reporting'::regnamespace, 'operations'::regnamespace)"
        paths = rows(owner, f"select proconfig from pg_proc where {ours} and prosecdef")
        assert paths
        assert all(path == ["search_path=public, pg_temp"] for (path,) in paths)
        public = (
            f"select oid::regprocedure from pg_proc where {ours} and has_function_privilege('public', oid, 'execute')"
        )
        assert rows(owner, public) == []


def test_a_new_function_and_a_new_table_are_nobodys_but_the_owners(postgres: Postgres) -> None:
    with logged_in(postgres, OWNER) as owner:
        owner.execute("create function public.later() returns int language sql as 'select 1'; create table later ()")
        for role in (SERVICE, ANALYST):
            owner.execute(
                f"select has_function_privilege('{role}', 'public.later()', 'execute'),"
                f" has_table_privilege('{role}', 'public.later', 'select')"
            )
            assert owner.fetchall() == [(False, False)]


def test_migrating_with_the_services_role_says_which_url_to_give(postgres: Postgres) -> None:
    with postgres.empty_database() as engine, pytest.raises(DatabaseRefused, match="MORPHBATCH_MIGRATION_URL"):
        upgrade(postgres.url(SERVICE, engine))


def test_a_migration_that_failed_does_not_keep_the_next_one_waiting(postgres: Postgres) -> None:
    with postgres.empty_database() as engine:
        with pytest.raises(DatabaseRefused) as failed:  # it keeps the frames, and what they hold, alive
            upgrade(postgres.url(SERVICE, engine))
        with postgres.as_owner(engine) as session:
            held = session.execute(text("select count(*) from pg_locks where locktype = 'advisory'")).scalar_one()
        assert (held, bool(failed.value)) == (0, True)
