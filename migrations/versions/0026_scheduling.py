"""Which slide is started next: urgent batches, a lab's window, pausing, cancelling; and one view that says so."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
only_expands = True

OPEN_BATCH = """
create view operations.open_batch as
select b.id as batch_key, l.id as lab_id, l.code as lab, b.urgent, b.received_at,
    case
        when b.cancelled_at is not null then 'batch_cancelled'
        when l.paused_at is not null then 'lab_paused'
        when b.paused_at is not null then 'batch_paused'
        when not b.urgent and case
            when l.window_opens < l.window_closes then not (clock.lab >= l.window_opens and clock.lab < l.window_closes)
            else clock.lab < l.window_opens and clock.lab >= l.window_closes
        end then 'outside_window'
    end as held
from batch b
join lab l on l.id = b.lab_id
cross join lateral (select (now() at time zone l.time_zone)::time as lab) clock
where b.state = 'analysing'
"""

OUTSTANDING = """
create or replace view operations.outstanding as
select b.lab,
    count(*) filter (where a.state = 'queued' and b.held is null) as slides_queued,
    count(*) filter (where a.state = 'running') as slides_running,
    count(*) filter (where a.state = 'running' or b.held is null) as slides,
    coalesce(sum((select count(*) from field f where f.slide_id = s.id))
        filter (where a.state = 'running' or b.held is null), 0)::bigint as fields,
    min(a.queued_at) filter (where a.state = 'running' or b.held is null) as oldest_queued_at,
    count(*) filter (where a.state = 'queued' and b.held is not null) as slides_held
from analysis a
join slide s on s.id = a.slide_id
join operations.open_batch b on b.batch_key = s.batch_id
where a.state in ('queued', 'running')
group by b.lab
"""
OUTSTANDING_BEFORE = """
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
OUTSTANDING_COMMENTS_BEFORE = {
    "view operations.outstanding": "One row per lab that has slides to analyse: those that wait and those that run."
    " By its sum workers are scaled",
    "column operations.outstanding.lab": "Code of the laboratory",
    "column operations.outstanding.slides_queued": "Slides that wait for a worker, or to be tried again",
    "column operations.outstanding.slides_running": "Slides that a worker has taken",
    "column operations.outstanding.slides": "Both together",
    "column operations.outstanding.fields": "Images of these slides",
    "column operations.outstanding.oldest_queued_at": "When the first of them was asked for",
}

THROUGHPUT = """
create or replace view reporting.throughput_by_night as
select reporting.night_of(s.finished_at, l.time_zone) as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells + s.cells_not_counted)::bigint as cells,
    sum(s.seconds) as busy_seconds, min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells + s.cells_not_counted)::bigint
        / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
join lab l on l.code = s.lab
where s.finished_at is not null and s.state not in ('queued', 'running', 'cancelled')
group by 1, s.lab, s.release_id
"""

COMMENTS = {
    "view operations.open_batch": "One row per batch that is being analysed: its place in the order, and why its"
    " slides may not be started now",
    "column operations.open_batch.batch_key": "Internal key of the batch; joins the views",
    "column operations.open_batch.lab_id": "Internal key of the laboratory",
    "column operations.open_batch.lab": "Code of the laboratory",
    "column operations.open_batch.urgent": "Passes others that wait, at any time of day",
    "column operations.open_batch.received_at": "When the manifest was read",
    "column operations.open_batch.held": "Code of why its slides may not be started now; null: they may",
    "view operations.outstanding": "One row per lab that has slides to analyse: those that may be started, those that"
    " run, and those that are held. By the sum of slides workers are scaled",
    "column operations.outstanding.slides": "Both together: what workers are scaled by",
    "column operations.outstanding.fields": "Images of these slides, without those that are held",
    "column operations.outstanding.slides_held": "Slides that may not be started now: outside the lab's window, or"
    " paused",
    "column reporting.batch_overview.state": "analysing, complete, complete_with_errors, rejected or cancelled",
}
STATES = "queued, running, done, insufficient, quarantined or cancelled"
STATES_BEFORE = "queued, running, done, insufficient or quarantined"
BATCH_STATES_BEFORE = "analysing, complete, complete_with_errors or rejected"

Kind = sa.DateTime | sa.Time | sa.String
BATCH_STATES = ("analysing", "complete", "complete_with_errors", "rejected")
SLIDE_STATES = ("queued", "running", "done", "quarantined", "insufficient")
HELD_LAB = ("window_opens", "window_closes", "paused_at", "paused_by", "pause_why")
HELD_BATCH = ("urgent", "paused_at", "paused_by", "pause_why", "cancelled_at", "cancelled_by", "cancel_why")


def upgrade() -> None:
    def column(table: str, name: str, kind: Kind, comment: str | None = None) -> None:
        op.add_column(table, sa.Column(name, kind, comment=comment))

    column(
        "lab", "window_opens", sa.Time(), "By the lab's clock: from then its slides may be started; null: at any time"
    )
    column("lab", "window_closes", sa.Time(), "From then on no more; may be after midnight")
    whole = "(window_opens is null) = (window_closes is null) and window_opens <> window_closes"
    for table in ("lab", "batch"):
        if table == "batch":
            urgent = "Passes others that wait, at any time of day"
            op.add_column(
                table, sa.Column("urgent", sa.Boolean(), server_default="false", nullable=False, comment=urgent)
            )
        column(table, "paused_at", sa.DateTime(timezone=True), "Since then none of its slides is started; null: it is")
        column(table, "paused_by", sa.String())
        column(table, "pause_why", sa.String(), "Why it was paused")
    op.create_check_constraint(op.f("ck_lab_window_whole"), "lab", whole)
    column("batch", "cancelled_at", sa.DateTime(timezone=True), "Since then no slide of it is started, for good")
    column("batch", "cancelled_by", sa.String())
    column("batch", "cancel_why", sa.String(), "Why it was cancelled")
    op.alter_column("analysis", "publish_at", existing_nullable=False, comment="While queued, it is not started before")
    op.create_index(op.f("ix_analysis_started_at"), "analysis", ["started_at"])
    _know("batch", (*BATCH_STATES, "cancelled"))
    _know("analysis", (*SLIDE_STATES, "cancelled"))
    op.execute(OPEN_BATCH)
    op.execute(OUTSTANDING)
    op.execute(THROUGHPUT)
    _comment(COMMENTS)
    _comment_states(STATES)
    op.execute("grant select on operations.open_batch to morphbatch_service")
    op.execute(f"grant update ({', '.join(HELD_LAB)}) on lab to morphbatch_service")


def downgrade() -> None:
    cancelled = sa.text("select from batch where cancelled_at is not null")
    if op.get_bind().execute(cancelled).first() is not None:
        raise RuntimeError(
            "a batch was cancelled, which the revision before cannot say: restore a backup of that version instead"
        )
    op.execute(THROUGHPUT.replace(", 'cancelled')", ")"))
    op.execute("drop view operations.outstanding, operations.open_batch")
    op.execute(OUTSTANDING_BEFORE)
    _comment({**OUTSTANDING_COMMENTS_BEFORE, "column reporting.batch_overview.state": BATCH_STATES_BEFORE})
    _comment_states(STATES_BEFORE)
    op.execute("grant select on operations.outstanding to morphbatch_service, morphbatch_scaler")
    _know("analysis", SLIDE_STATES)
    _know("batch", BATCH_STATES)
    op.drop_index(op.f("ix_analysis_started_at"), "analysis")
    before = "While queued, the sweep publishes it (again) once this has passed"
    op.alter_column("analysis", "publish_at", existing_nullable=False, comment=before)
    for table, columns in (("batch", HELD_BATCH), ("lab", HELD_LAB)):
        for name in columns:
            op.drop_column(table, name)


def _know(table: str, states: tuple[str, ...]) -> None:
    op.drop_constraint(op.f(f"ck_{table}_state_known"), table)
    known = ", ".join(f"'{state}'" for state in states)
    op.create_check_constraint(op.f(f"ck_{table}_state_known"), table, f"state in ({known})")


def _comment(comments: dict[str, str]) -> None:
    for subject, comment in comments.items():
        quoted = comment.replace("'", "''")
        op.execute(f"comment on {subject} is '{quoted}'")


def _comment_states(comment: str) -> None:
    """Of every view's column that holds the state of a slide."""
    views = op.get_bind().execute(
        sa.text(
            "select table_name from information_schema.columns where table_schema = 'reporting'"
            " and column_name = 'state' and table_name <> 'batch_overview'"
        )
    )
    _comment({f"column reporting.{view}.state": comment for (view,) in views.all()})
