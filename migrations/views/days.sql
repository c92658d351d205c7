-- Nights, and when a slide was collected and received, by the clock of its lab.

-- The one definition of a night. 12 hours are taken from what the clock shows, not from the moment: a night in which the
-- clock is changed has 23 or 25 hours.
create function reporting.night_of(at timestamptz, time_zone text) returns date
language sql immutable parallel safe return (at at time zone time_zone - interval '12 hours')::date;
comment on function reporting.night_of(timestamptz, text) is
    'Evening of the night that a moment belongs to: a night goes from noon to noon by the clock of the time zone';


create view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    reporting.night_of(b.received_at, l.time_zone) as night, s.order_number, s.accession_number, s.sample_type,
    s.stain_lot
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id;
comment on view reporting.slide_day is
    'One row per slide: its day and month at the lab, by its collection, else by its receipt, and the night of receipt';
