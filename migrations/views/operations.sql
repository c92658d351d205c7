-- What the machinery around the service asks: how much work there is. No name of a slide or specimen is in it.

create schema operations;

-- The one place that says of which batches slides may be started. Workers take slides by it, hints are published by it,
-- and the view below counts by it. What is queued or running is of an open batch.
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
where b.state = 'analysing';
comment on view operations.open_batch is
    'One row per batch that is being analysed: its place in the order, and why its slides may not be started now';

-- Of the analyses themselves and not of those that count: whatever is queued or running takes a worker's time.
create view operations.outstanding as
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
group by b.lab;
comment on view operations.outstanding is
    'One row per lab that has slides to analyse: those that may be started, those that run, and those that are held';

-- For the forecast of when the work ends. Slides that are held are none of it.
create view operations.outstanding_slide as
select b.urgent, a.queued_at, (select count(*) from field f where f.slide_id = s.id) as fields
from analysis a
join slide s on s.id = a.slide_id
join operations.open_batch b on b.batch_key = s.batch_id
where a.state = 'running' or (a.state = 'queued' and b.held is null);
comment on view operations.outstanding_slide is
    'One row per slide that may be started or runs: what operations.workers_wanted counts';

-- What it waited for is in it: with more workers than Triton serves each becomes slower.
create view operations.worker_speed as
select count(*) as slides, sum(fields)::float8 / nullif(sum(seconds), 0) as fields_per_second
from (
    select (a.timings ->> 'total')::float8 as seconds,
        (select count(*) from field f where f.slide_id = a.slide_id) as fields
    from analysis a
    where a.started_at > now() - interval '7 days' and a.state in ('done', 'insufficient') and a.fused_from is null
    order by a.started_at desc
    limit 200
) recent;
comment on view operations.worker_speed is
    'One row: what one worker did with the last slides, 200 at most, of the last seven days';

-- `services/capacity/scaling.py` plays nights by the same rule.
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
        -- Ten minutes for what cannot wait; else a fifth of the time in reserve.
        (work.slides_at_once, work.fields_at_once, 600.0::float8),
        (work.slides, work.fields, 0.8 * seconds_left)
    ) part (slides, fields, seconds)
);
comment on function operations.workers_wanted is
    'As few workers as end all work by the next finish_by, by the clock of time_zone; urgent slides, and those asked for'
    ' before the last finish_by, within ten minutes';
