"""How many workers end the night by an hour: what is outstanding over what one worker does."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None
only_expands = True

OUTSTANDING_SLIDE = """
create view operations.outstanding_slide as
select b.urgent, a.queued_at, (select count(*) from field f where f.slide_id = s.id) as fields
from analysis a
join slide s on s.id = a.slide_id
join operations.open_batch b on b.batch_key = s.batch_id
where a.state = 'running' or (a.state = 'queued' and b.held is null)
"""

WORKER_SPEED = """
create view operations.worker_speed as
select count(*) as slides, sum(fields)::float8 / nullif(sum(seconds), 0) as fields_per_second
from (
    select (a.timings ->> 'total')::float8 as seconds,
        (select count(*) from field f where f.slide_id = a.slide_id) as fields
    from analysis a
    where a.started_at > now() - interval '7 days' and a.state in ('done', 'insufficient') and a.fused_from is null
    order by a.started_at desc
    limit 200
) recent
"""

WORKERS_WANTED = """
create function operations.workers_wanted(finish_by time, time_zone text, moment timestamptz default now())
returns integer
language sql stable return (
    with due as (
        select local, (local::date + case when local::time < finish_by then 0 else 1 end) + finish_by as next
        from (select moment at time zone time_zone) clock (local)
    ),
    hours as (
        select extract(epoch from (next at time zone time_zone) - moment)::float8 as seconds_left,
            (next - interval '1 day') at time zone time_zone as last_due
        from due
    ),
    work as (
        select count(*) as slides, sum(fields)::float8 as fields,
            count(*) filter (where urgent or queued_at < last_due) as slides_at_once,
            (sum(fields) filter (where urgent or queued_at < last_due))::float8 as fields_at_once
        from operations.outstanding_slide, hours
    )
    select least(
        max(work.slides),
        max(case
            when part.slides = 0 then 0
            when speed.fields_per_second > 0
                then greatest(1, ceil(part.fields / (speed.fields_per_second * part.seconds) - 1e-9))
            else ceil(part.slides / 4.0)
        end)
    )::integer
    from hours, work, operations.worker_speed speed, lateral (values
        (work.slides_at_once, work.fields_at_once, 600.0::float8),
        (work.slides, work.fields, 0.8 * seconds_left)
    ) part (slides, fields, seconds)
)
"""

COMMENTS = {
    "view operations.outstanding": "One row per lab that has slides to analyse: those that may be started, those that"
    " run, and those that are held",
    "column operations.outstanding.slides": "Both together",
    "view operations.outstanding_slide": "One row per slide that may be started or runs: what"
    " operations.workers_wanted counts",
    "column operations.outstanding_slide.urgent": "Passes others that wait, at any time of day",
    "column operations.outstanding_slide.queued_at": "When it was queued",
    "column operations.outstanding_slide.fields": "Images of the slide",
    "view operations.worker_speed": "One row: what one worker did with the last slides, 200 at most, of the last seven"
    " days",
    "column operations.worker_speed.slides": "Slides that it was measured on",
    "column operations.worker_speed.fields_per_second": "Images of a slide over the seconds that it took, waiting"
    " included; null: none was analysed",
    "function operations.workers_wanted": "As few workers as end all work by the next finish_by, by the clock of"
    " time_zone; urgent slides, and those asked for before the last finish_by, within ten minutes",
}
COMMENTS_BEFORE = {
    "view operations.outstanding": "One row per lab that has slides to analyse: those that may be started, those that"
    " run, and those that are held. By the sum of slides workers are scaled",
    "column operations.outstanding.slides": "Both together: what workers are scaled by",
}
READERS = "morphbatch_service, morphbatch_scaler"
SIGNATURE = "operations.workers_wanted(time, text, timestamptz)"


def upgrade() -> None:
    op.execute(OUTSTANDING_SLIDE)
    op.execute(WORKER_SPEED)
    op.execute(WORKERS_WANTED)
    for what, comment in COMMENTS.items():
        op.execute(f"comment on {what} is '{comment}'")
    op.execute(f"grant select on operations.outstanding_slide, operations.worker_speed to {READERS}")
    op.execute(f"revoke execute on function {SIGNATURE} from public")
    op.execute(f"grant execute on function {SIGNATURE} to {READERS}")


def downgrade() -> None:
    op.execute(f"drop function {SIGNATURE}")
    op.execute("drop view operations.worker_speed")
    op.execute("drop view operations.outstanding_slide")
    for what, comment in COMMENTS_BEFORE.items():
        op.execute(f"comment on {what} is '{comment}'")
