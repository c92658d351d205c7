-- What the machinery around the service asks: how much work there is. No name of a slide or specimen is in it.

create schema operations;

-- Of the analyses themselves and not of those that count: whatever is queued or running takes a worker's time.
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
group by l.code;
comment on view operations.outstanding is
    'One row per lab that has slides to analyse: those that wait and those that run. By its sum workers are scaled';
