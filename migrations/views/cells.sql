-- Single cells: classes, confidence, measures.

create view reporting.cell as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, s.um_per_px, a.release_id, a.release_kind, a.analysis_id, c.number, c.field_id as field_key,
    f.position as field_position, f.key as field, c.x0, c.y0, c.x1, c.y1, c.class_index, m.class_name, m.region,
    c.confidence, c.probabilities, c.efficientnetv2_s_logits, c.resnetv2_50_logits, c.head_outline, c.head_length_um,
    c.head_width_um, c.head_area_um2, c.head_perimeter_um, c.ellipticity, c.elongation, c.roughness, c.regularity,
    c.acrosome_share, c.vacuole_share, c.midpiece_width_um, c.midpiece_angle_deg,
    m.class_code, m.class_name_tr, s.collected_at,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day, c.crop_inside_share, c.not_counted
from cell c
join reporting.current_analysis a on a.analysis_id = c.analysis_id
join slide s on s.id = a.slide_key
-- With the day, only that month's partition is read.
join batch b on b.id = s.batch_id and b.received_on = c.received_on
join lab l on l.id = b.lab_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index;
comment on view reporting.cell is
    'One row per classified cell of the analyses that count; give a received_on range to read few partitions';


create view reporting.confidence_by_slide as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.stain,
    a.release_id, a.release_kind, c.cells, c.mean_confidence_pct, c.low_confidence_pct
from reporting.current_analysis a
join slide s on s.id = a.slide_key
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
cross join lateral (
    select count(*) as cells, 100 * avg(confidence)::float8 as mean_confidence_pct,
        100.0::float8 * count(*) filter (where confidence < 0.5) / count(*) as low_confidence_pct
    from cell where received_on = b.received_on and analysis_id = a.analysis_id and not_counted is null
    having count(*) > 0
) c;
comment on view reporting.confidence_by_slide is
    'One row per slide: how sure the networks are of its cells; a fall over weeks is the first sign of drift';


create view reporting.morphometry_by_slide as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, m.measure, m.unit, v.cells_measured, v.cells_total, v.percentiles[2] as median,
    v.percentiles[1] as p05, v.percentiles[3] as p95, w.who_low, w.who_high,
    100.0::float8 * v.within_who / nullif(case when w.who_low is not null then v.cells_measured end, 0)
        as within_who_pct,
    m.who_stain
from reporting.current_analysis a
join slide s on s.id = a.slide_key
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
cross join lateral (
    select v.measure, count(v.value) as cells_measured, count(*) as cells_total,
        percentile_cont(array[0.05, 0.5, 0.95]) within group (order by v.value) as percentiles,
        count(*) filter (where v.value between m.who_low and m.who_high) as within_who
    from cell c
    cross join lateral (values
        ('head_length_um', c.head_length_um), ('head_width_um', c.head_width_um), ('head_area_um2', c.head_area_um2),
        ('head_perimeter_um', c.head_perimeter_um), ('ellipticity', c.ellipticity), ('elongation', c.elongation),
        ('roughness', c.roughness), ('regularity', c.regularity), ('acrosome_share', c.acrosome_share),
        ('vacuole_share', c.vacuole_share), ('midpiece_width_um', c.midpiece_width_um),
        ('midpiece_angle_deg', c.midpiece_angle_deg)
    ) v (measure, value)
    join reporting.measure m on m.measure = v.measure
    where c.received_on = b.received_on and c.analysis_id = a.analysis_id
        -- The head of any other cell that is not counted is whole, and its measures hold.
        and c.not_counted is distinct from 'not_a_sperm'
    group by v.measure
) v
join reporting.measure m on m.measure = v.measure
-- A range that was measured after one stain holds for no other.
cross join lateral (
    select case when coalesce(m.who_stain, s.stain) = s.stain then m.who_low end as who_low,
        case when coalesce(m.who_stain, s.stain) = s.stain then m.who_high end as who_high
) w;
comment on view reporting.morphometry_by_slide is
    'One row per slide and measure: median, 5th and 95th percentile, beside the WHO range for the stain';
