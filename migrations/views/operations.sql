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
    'One row per lab that has slides to analyse: those that may be started, those that run, and those that are held.'
    ' By the sum of slides workers are scaled';
