-- When a slide was collected and received, by the clock of its lab.

create view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    (b.received_at at time zone l.time_zone - interval '12 hours')::date as night
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id;
comment on view reporting.slide_day is
    'One row per slide: its day and month at the lab, by its collection, else by its receipt, and the night of receipt';
