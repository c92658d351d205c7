"""How much work there is, in a schema of its own, for a role that reads nothing else and scales the workers by it."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A role belongs to the whole server: another database may have made it, or be making it at this moment.
MAKE_SCALER = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'morphbatch_scaler') then
        create role morphbatch_scaler nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception using errcode = 'insufficient_privilege', message =
            'role morphbatch_scaler is missing and this role may not create it:'
            ' run migrations/roles.sql as a superuser in this database, then migrate again';
end $$;
"""

OF_DATABASE = """
do $$ begin
    execute format('{}', current_database());
end $$;
"""

OUTSTANDING = """
create view operations.outstanding as
select l.code as lab,
    count(*) filter (where a.state = 'queued') as slides_queued,
    count(*) filter (where a.state = 'running') as slides_running,
    count(*) as slides,
    sum((select count(*) from field f where f.slide_id = s.id))::bigint as fields,
    min(a.queued_at) as oldest_queued_at
from analysis a
join slide s on s.id = a.slide_id
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
where a.state in ('queued', 'running')
group by l.code
"""

COMMENTS = {
    "view operations.outstanding": "One row per lab that has slides to analyse: those that wait and those that run."
    " By its sum workers are scaled",
    "column operations.outstanding.lab": "Code of the laboratory",
    "column operations.outstanding.slides_queued": "Slides that wait for a worker, or to be tried again",
    "column operations.outstanding.slides_running": "Slides that a worker has taken",
    "column operations.outstanding.slides": "Both together",
    "column operations.outstanding.fields": "Images of these slides",
    "column operations.outstanding.oldest_queued_at": "When the first of them was asked for",
}


def upgrade() -> None:
    # Last night's batches are asked for every few seconds.
    op.create_index(op.f("ix_batch_received_at"), "batch", ["received_at"])
    op.execute(MAKE_SCALER)
    op.execute("create schema operations")
    op.execute(OUTSTANDING)
    for what, comment in COMMENTS.items():
        op.execute(f"comment on {what} is '{comment}'")
    op.execute(OF_DATABASE.format("grant connect on database %I to morphbatch_scaler"))
    op.execute("grant usage on schema operations to morphbatch_service, morphbatch_scaler")
    op.execute("grant select on operations.outstanding to morphbatch_service, morphbatch_scaler")


def downgrade() -> None:
    # The role stays: it belongs to the server, and other databases may grant it something.
    op.execute(OF_DATABASE.format("revoke all on database %I from morphbatch_scaler"))
    op.execute("drop view operations.outstanding")
    op.execute("drop schema operations")
    op.drop_index(op.f("ix_batch_received_at"), "batch")
