-- Schema `reporting`: what analysts ask. Percentages are 0 to 100, shares of a head 0 to 1, times UTC.
-- The tables morphology_class and measure are made and filled by revision 0002 before this file runs.

create function reporting.wilson_low_pct(cells bigint, total bigint) returns double precision
language sql immutable parallel safe return
    case when total = 0 then null when cells = 0 then 0 else
        100 * ((cells::float8 / total + 3.8414588206941245 / (2 * total))
            - 1.959963984540054 * sqrt(cells::float8 / total * (1 - cells::float8 / total) / total
                + 3.8414588206941245 / (4 * total::float8 * total)))
        / (1 + 3.8414588206941245 / total)
    end;
comment on function reporting.wilson_low_pct(bigint, bigint) is
    'Lower bound, %, of the Wilson score interval at 95 % of the share cells / total; null of nothing';

create function reporting.wilson_high_pct(cells bigint, total bigint) returns double precision
language sql immutable parallel safe return 100 - reporting.wilson_low_pct(total - cells, total);
comment on function reporting.wilson_high_pct(bigint, bigint) is
    'Upper bound, %, of the Wilson score interval at 95 % of the share cells / total; null of nothing';


create view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists (select from analysis newer where newer.slide_id = a.slide_id and newer.id > a.id);
comment on view reporting.current_analysis is
    'For each slide the one analysis that counts: the latest. Every other view builds on it';


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
    (a.timings ->> 'total')::float8 as seconds, coalesce(a.timings, '{}') as timings
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis a on a.slide_key = s.id
left join lateral (
    select coalesce(sum(c.cells), 0)::bigint as cells
    from slide_class_count c join reporting.morphology_class m using (class_index)
    where c.analysis_id = a.analysis_id and m.region = 'none'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0;
comment on view reporting.slide_result is
    'One row a slide: its state, what was counted, and its normal forms with their interval. Not a diagnosis';


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
    extract(epoch from max(s.finished_at) - min(s.started_at))::float8 as seconds
from batch b
join lab l on l.id = b.lab_id
left join reporting.slide_result s on s.batch_key = b.id
group by b.id, l.code;
comment on view reporting.batch_overview is 'One row a batch: is last night complete, and how much was counted';


create view reporting.class_distribution as
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.specimen, s.replicate, s.stain, s.analysis_id,
    s.release_id, s.release_kind, m.class_index, m.name as class_name, m.region, coalesce(c.cells, 0) as cells,
    s.cells as cells_total, 100.0::float8 * coalesce(c.cells, 0) / s.cells as pct,
    reporting.wilson_low_pct(coalesce(c.cells, 0), s.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(c.cells, 0), s.cells) as high_pct
from reporting.slide_result s
cross join reporting.morphology_class m
left join slide_class_count c on c.analysis_id = s.analysis_id and c.class_index = m.class_index
where s.state in ('done', 'insufficient') and s.cells > 0;
comment on view reporting.class_distribution is
    'One row a slide and class, 18 rows a slide: cells, share and its Wilson interval';


create view reporting.region_share as
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, region, sum(cells)::bigint as cells, cells_total,
    100.0::float8 * sum(cells) / cells_total as pct,
    reporting.wilson_low_pct(sum(cells)::bigint, cells_total) as low_pct,
    reporting.wilson_high_pct(sum(cells)::bigint, cells_total) as high_pct
from reporting.class_distribution
group by batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, region, cells_total;
comment on view reporting.region_share is
    'One row a slide and region of the defect (head, neck, tail; none: normal forms). One class a cell, so they add up';


create view reporting.specimen_distribution as
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind,
    count(distinct slide_id) as slides, count(distinct replicate) as replicates, class_index, class_name, region,
    sum(cells)::bigint as cells, sum(cells_total)::bigint as cells_total,
    100.0::float8 * sum(cells) / sum(cells_total) as pct,
    reporting.wilson_low_pct(sum(cells)::bigint, sum(cells_total)::bigint) as low_pct,
    reporting.wilson_high_pct(sum(cells)::bigint, sum(cells_total)::bigint) as high_pct,
    sum(cells) filter (where replicate = 1)::bigint as replicate_1_cells,
    sum(cells_total) filter (where replicate = 1)::bigint as replicate_1_total,
    sum(cells) filter (where replicate = 2)::bigint as replicate_2_cells,
    sum(cells_total) filter (where replicate = 2)::bigint as replicate_2_total
from reporting.class_distribution
group by batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, class_index, class_name,
    region;
comment on view reporting.specimen_distribution is
    'One row a specimen and class, the replicates of one batch, stain and release joined';


create view reporting.cell as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, s.um_per_px, a.release_id, a.release_kind, a.analysis_id, c.number, c.field_id as field_key,
    f.position as field_position, f.key as field, c.x0, c.y0, c.x1, c.y1, c.class_index, m.name as class_name, m.region,
    c.confidence, c.probabilities, c.efficientnetv2_s_logits, c.resnetv2_50_logits, c.head_outline, c.head_length_um,
    c.head_width_um, c.head_area_um2, c.head_perimeter_um, c.ellipticity, c.elongation, c.roughness, c.regularity,
    c.acrosome_share, c.vacuole_share, c.midpiece_width_um, c.midpiece_angle_deg
from cell c
join reporting.current_analysis a on a.analysis_id = c.analysis_id
join slide s on s.id = a.slide_key
-- With the day, only that month's partition is read.
join batch b on b.id = s.batch_id and b.received_on = c.received_on
join lab l on l.id = b.lab_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index;
comment on view reporting.cell is
    'One row a classified cell of the analyses that count; give a received_on range to read few partitions';


create view reporting.confidence_by_slide as
select batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind, count(*) as cells,
    100 * avg(confidence)::float8 as mean_confidence_pct,
    100.0::float8 * count(*) filter (where confidence < 0.5) / count(*) as low_confidence_pct
from reporting.cell
group by batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind;
comment on view reporting.confidence_by_slide is
    'One row a slide: how sure the networks are of its cells; a fall over weeks is the first sign of drift';


create view reporting.morphometry_by_slide as
select c.batch_key, c.lab, c.batch_id, c.received_on, c.slide_id, c.specimen, c.replicate, c.stain, m.measure, m.unit,
    count(v.value) as cells_measured, count(*) as cells_total,
    percentile_cont(0.5) within group (order by v.value) as median,
    percentile_cont(0.05) within group (order by v.value) as p05,
    percentile_cont(0.95) within group (order by v.value) as p95,
    m.who_low, m.who_high,
    100.0::float8 * count(*) filter (where v.value between m.who_low and m.who_high)
        / nullif(count(v.value) filter (where m.who_low is not null), 0) as within_who_pct
from reporting.cell c
cross join lateral (values
    ('head_length_um', c.head_length_um), ('head_width_um', c.head_width_um), ('head_area_um2', c.head_area_um2),
    ('head_perimeter_um', c.head_perimeter_um), ('ellipticity', c.ellipticity), ('elongation', c.elongation),
    ('roughness', c.roughness), ('regularity', c.regularity), ('acrosome_share', c.acrosome_share),
    ('vacuole_share', c.vacuole_share), ('midpiece_width_um', c.midpiece_width_um),
    ('midpiece_angle_deg', c.midpiece_angle_deg)
) v (measure, value)
join reporting.measure m on m.measure = v.measure
group by c.batch_key, c.lab, c.batch_id, c.received_on, c.slide_id, c.specimen, c.replicate, c.stain, m.measure,
    m.unit, m.who_low, m.who_high;
comment on view reporting.morphometry_by_slide is
    'One row a slide and measure: median, 5th and 95th percentile of the cells measured, beside the WHO range';


create view reporting.quality_by_field as
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.stain, s.um_per_px, f.position as field_position,
    f.key as field, f.kind, r.width_px, r.height_px,
    r.reason is null and s.state in ('done', 'insufficient') as used, r.reason, r.detail, r.cells,
    r.on_border, o.rejected as objects_rejected, o.by_reason as rejected_by_reason,
    (r.quality ->> 'focus_um')::float8 as focus_um, (r.quality ->> 'exposure_pct')::float8 as exposure_pct,
    (r.quality ->> 'clipped_pct')::float8 as clipped_pct, (r.quality ->> 'background_pct')::float8 as background_pct,
    (r.quality ->> 'unevenness_pct')::float8 as unevenness_pct, (r.quality ->> 'stain_od')::float8 as stain_od,
    array(select jsonb_array_elements_text(coalesce(r.quality -> 'flags', '[]'))) as flags,
    array(select jsonb_array_elements_text(coalesce(r.quality -> 'notes', '[]'))) as notes
from reporting.slide_result s
join field_result r on r.analysis_id = s.analysis_id
join field f on f.id = r.field_id
cross join lateral (
    select coalesce(sum(n) filter (where why <> 'border'), 0)::bigint as rejected,
        coalesce(jsonb_object_agg(why, n), '{}') as by_reason
    from (select item ->> 'reason' as why, count(*) as n from jsonb_array_elements(r.rejected) item group by 1) reasons
) o;
comment on view reporting.quality_by_field is 'One row a field: focus, light, stain, what was left out and why';


create view reporting.throughput_by_night as
select (s.finished_at at time zone 'UTC' - interval '12 hours')::date as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells)::bigint as cells, sum(s.seconds) as busy_seconds,
    min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells) / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
where s.finished_at is not null and s.state not in ('queued', 'running')
group by 1, s.lab, s.release_id;
comment on view reporting.throughput_by_night is
    'One row a night (noon to noon UTC, named by its evening), lab and release: work done and its speed';


create view reporting.release as
select r.id as release_id, r.kind, r.active, r.created_at,
    (r.document -> 'fusion' ->> 'alpha')::float8 as fusion_alpha, (r.document ->> 'crop_um')::float8 as crop_um,
    (r.document ->> 'crop_px')::integer as crop_px, r.document ->> 'git_commit' as git_commit,
    r.document ->> 'data_fingerprint' as data_fingerprint, r.document -> 'metrics' as metrics,
    (select count(*) from analysis a where a.release_id = r.id) as slides
from model_release r;
comment on view reporting.release is 'One row a release of the networks; `untrained` and `demonstration` say nothing';
