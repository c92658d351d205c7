"""Three roles: the owner migrates, the service writes rows, the analyst reads schema `reporting`."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A role belongs to the whole server: another database may have made it, or be making it at this moment.
MAKE_SERVICE = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'morphbatch_service') then
        create role morphbatch_service nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception using errcode = 'insufficient_privilege', message =
            'role morphbatch_service is missing and this role may not create it:'
            ' run migrations/roles.sql as a superuser in this database, then migrate again';
end $$;
"""

MAKE_PARTITIONS = """
create or replace function make_cell_partitions(from_month date, months integer) returns void
language plpgsql security definer set search_path = {path} as $$
declare
    first_day date;
begin
    for i in 0 .. months - 1 loop
        first_day := date_trunc('month', from_month)::date + make_interval(months => i);
        if to_regclass(to_char(first_day, '"{schema}cell_"YYYY_MM')) is null then
            -- Two at once: the second waits here, then finds the table there.
            perform pg_advisory_xact_lock(hashtext('make_cell_partitions'));
            execute format(
                'create table if not exists {schema}%I partition of {schema}cell for values from (%L) to (%L)',
                to_char(first_day, '"cell_"YYYY_MM'), first_day, (first_day + interval '1 month')::date);
        end if;
    end loop;
end
$$;
"""

OF_DATABASE = """
do $$ begin
    execute format('{}', current_database());
end $$;
"""

# A function that a later revision adds needs a grant of its own.
UPGRADE = (
    OF_DATABASE.format("revoke all on database %I from public"),
    OF_DATABASE.format("grant connect on database %I to morphbatch_analyst"),
    OF_DATABASE.format("grant connect, temporary on database %I to morphbatch_service"),
    "revoke all on schema public from public",
    "grant usage on schema public, reporting to morphbatch_service",
    "alter default privileges revoke execute on functions from public",
    "revoke execute on all functions in schema public, reporting from public",
    "grant execute on all functions in schema reporting to morphbatch_analyst, morphbatch_service",
    # With its owner's rights it must not find what a caller has put into his temporary schema.
    MAKE_PARTITIONS.format(path="public, pg_temp", schema="public."),
    "grant execute on function make_cell_partitions(date, integer) to morphbatch_service",
    "grant select on alembic_version to morphbatch_service",
    "grant select on all tables in schema reporting to morphbatch_service",
    "alter default privileges in schema reporting grant select on tables to morphbatch_service",
    "grant select, insert on lab, slide, field, audit_event to morphbatch_service",
    "grant select, insert, update on batch, analysis, model_release to morphbatch_service",
    "grant select, insert, delete on cell, field_result, slide_class_count to morphbatch_service",
    "grant select on review to morphbatch_service",
)

DOWNGRADE = (
    "revoke all on all tables in schema public, reporting from morphbatch_service",
    "alter default privileges in schema reporting revoke select on tables from morphbatch_service",
    "revoke execute on all functions in schema public, reporting from morphbatch_analyst, morphbatch_service",
    MAKE_PARTITIONS.format(path="public", schema=""),
    "grant execute on all functions in schema public, reporting to public",
    "alter default privileges grant execute on functions to public",
    "revoke usage on schema public, reporting from morphbatch_service",
    "grant usage on schema public to public",
    OF_DATABASE.format("revoke all on database %I from morphbatch_analyst, morphbatch_service"),
    OF_DATABASE.format("grant connect, temporary on database %I to public"),
)


def upgrade() -> None:
    op.execute(MAKE_SERVICE)
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    # The role stays: it belongs to the server, and other databases may grant it something.
    for statement in DOWNGRADE:
        op.execute(statement)
