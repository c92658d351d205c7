-- Slides and batches: which analysis counts, what came of it, how fast the night was.

create view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings, a.version, a.not_counted_by_reason
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists (
    select from analysis other where other.slide_id = a.slide_id
        and (other.state in ('done', 'insufficient'), other.version) > (a.state in ('done', 'insufficient'), a.version)
) and not exists (
    select from slide s join batch b on b.id = s.batch_id where s.id = a.slide_id and b.voided_at is not null
);
comment on view reporting.current_analysis is
    'For each slide the one analysis that counts: the latest that has a result; without any result, the latest';


create view reporting.latest_analysis as
select a.slide_id as slide_key, a.id as analysis_id, a.version, a.release_id, a.state, a.attempts, a.reason, a.detail,
    a.queued_at, a.started_at, a.finished_at, a.cells_classified, a.asked_by, a.why
from analysis a
where not exists (select from analysis newer where newer.slide_id = a.slide_id and newer.version > a.version);
comment on view reporting.latest_analysis is
    'For each slide the analysis asked for last, whatever came of it: what is under way, and what went wrong';


create view reporting.slide_result as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.position, s.slide_code as slide_id, s.specimen, s.replicate, s.stain, s.um_per_px, a.analysis_id, a.release_id,
    a.release_kind, coalesce(a.state, 'queued') as state, a.reason, a.detail, coalesce(a.attempts, 0) as attempts,
    a.started_at, a.finished_at, coalesce(a.cells_classified, 0) as cells, coalesce(a.cells_on_border, 0) as on_border,
    coalesce(a.objects_rejected, 0) as objects_rejected,
    (select count(*) from field f where f.slide_id = s.id) as fields,
    (select count(*) from field_result fr where fr.analysis_id = a.analysis_id and fr.reason is null
        and a.state in ('done', 'insufficient')) as fields_used,
    (select count(*) from field_result fr where fr.analysis_id = a.analysis_id and fr.reason is not null)
        as fields_set_aside,
    n.cells as normal_cells,
    100.0::float8 * n.cells / nullif(a.cells_classified, 0) as normal_pct,
    reporting.wilson_low_pct(n.cells, a.cells_classified) as normal_low_pct,
    reporting.wilson_high_pct(n.cells, a.cells_classified) as normal_high_pct,
    case when a.state in ('done', 'insufficient') then a.cells_classified < 200 end as fewer_than_200_cells,
    (a.timings ->> 'total')::float8 as seconds, coalesce(a.timings, '{}') as timings, a.version,
    later.version as later_version, later.state as later_state, later.reason as later_reason,
    later.detail as later_detail, reporting.sum_of(a.not_counted_by_reason) as cells_not_counted,
    coalesce(a.not_counted_by_reason, '{}') as not_counted_by_reason
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis a on a.slide_key = s.id
left join reporting.latest_analysis later on later.slide_key = s.id and later.version > a.version
left join lateral (
    select coalesce(sum(c.cells), 0)::bigint as cells
    from slide_class_count c join reporting.morphology_class m using (class_index)
    where c.analysis_id = a.analysis_id and m.region = 'normal'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
where b.voided_at is null;
comment on view reporting.slide_result is
    'One row per slide: its state, what was counted, and its normal forms with their interval. Not a diagnosis';


create view reporting.batch_overview as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.state, b.received_on, b.received_at, b.closed_at,
    count(s.slide_key) as slides,
    count(*) filter (where s.state = 'done') as slides_done,
    count(*) filter (where s.state = 'insufficient') as slides_insufficient,
    count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    count(*) filter (where s.state in ('queued', 'running')) as slides_open,
    coalesce(sum(s.fields), 0)::bigint as fields,
    coalesce(sum(s.fields_used), 0)::bigint as fields_used,
    coalesce(sum(s.cells), 0)::bigint as cells,
    coalesce(sum(s.on_border), 0)::bigint as on_border,
    coalesce(sum(s.objects_rejected), 0)::bigint as objects_rejected,
    array_agg(distinct s.release_id) filter (where s.release_id is not null) as release_ids,
    coalesce(bool_or(s.release_kind <> 'trained'), false) as not_for_use,
    extract(epoch from max(s.finished_at) - min(s.started_at))::float8 as seconds,
    count(s.later_state) as slides_pending, b.voided_at, b.voided_by, b.void_why,
    coalesce(sum(s.cells_not_counted), 0)::bigint as cells_not_counted
from batch b
join lab l on l.id = b.lab_id
left join reporting.slide_result s on s.batch_key = b.id
group by b.id, l.code;
comment on view reporting.batch_overview is 'One row per batch: is last night complete, and how much was counted';


create view reporting.throughput_by_night as
select reporting.night_of(s.finished_at, l.time_zone) as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells + s.cells_not_counted)::bigint as cells,
    sum(s.seconds) as busy_seconds, min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells + s.cells_not_counted)::bigint
        / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
join lab l on l.code = s.lab
where s.finished_at is not null and s.state not in ('queued', 'running', 'cancelled')
group by 1, s.lab, s.release_id;
comment on view reporting.throughput_by_night is
    'One row per night (noon to noon by the lab''s clock, named by its evening), lab and release: work done and its speed';
