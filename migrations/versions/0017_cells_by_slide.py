"""Views over cells and specimens read the cells of each slide by itself, so that a year of them stays quick to ask."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

REPEATED_FIELDS = """
create or replace view reporting.repeated_fields as
select b.id as batch_key, b.received_on, s.slide_code as slide_id, a.analysis_id,
    array_agg(distinct f.id order by f.id) as field_keys
from field f
join field o on o.sha256 = f.sha256 and o.id < f.id
join slide s on s.id = f.slide_id
join slide e on e.id = o.slide_id and e.id <> s.id and e.batch_id = s.batch_id and e.specimen = s.specimen
    and e.stain = s.stain
join batch b on b.id = s.batch_id
join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')
join reporting.current_analysis ea on ea.slide_key = e.id and ea.state in ('done', 'insufficient')
    and ea.release_id = a.release_id
group by b.id, b.received_on, s.slide_code, a.analysis_id
"""
COUNTED_BEFORE = """
create or replace view reporting.counted_before as
select r.batch_key, r.received_on, r.slide_id, r.analysis_id, c.class_index, c.cells
from reporting.repeated_fields r
-- For each slide, so that no cells of others are read.
cross join lateral (
    select class_index, count(*) as cells from cell
    where received_on = r.received_on and analysis_id = r.analysis_id and field_id = any(r.field_keys)
    group by class_index
) c
"""
SPECIMEN_DISTRIBUTION = """
create or replace view reporting.specimen_distribution as
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region,
    case when joined then cells end as cells, cells_total,
    case when joined then 100.0::float8 * cells / cells_total end as pct,
    case when joined then reporting.wilson_low_pct(cells, cells_total) end as low_pct,
    case when joined then reporting.wilson_high_pct(cells, cells_total) end as high_pct,
    replicate_1_cells, replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree, class_code,
    class_name_tr
from (
    select *, coalesce(replicates_agree, true) as joined
    from (
        -- Replicates that share images say nothing of each other.
        select *, case when not bool_or(share_images) over specimens then
            bool_and(reporting.replicates_agree(replicate_1_cells, replicate_1_total, replicate_2_cells,
                replicate_2_total)) filter (where region = 'normal') over specimens
            end as replicates_agree
        from (
            select d.batch_key, d.lab, d.batch_id, d.received_on, d.specimen, d.stain, d.release_id, d.release_kind,
                count(distinct d.slide_id) as slides, count(distinct d.replicate) as replicates, d.class_index,
                d.class_name, d.region, d.class_code, d.class_name_tr,
                sum(d.cells - coalesce(k.cells, 0))::bigint as cells,
                sum(d.cells_total - coalesce(t.cells, 0))::bigint as cells_total,
                sum(d.cells) filter (where d.replicate = 1)::bigint as replicate_1_cells,
                sum(d.cells_total) filter (where d.replicate = 1)::bigint as replicate_1_total,
                sum(d.cells) filter (where d.replicate = 2)::bigint as replicate_2_cells,
                sum(d.cells_total) filter (where d.replicate = 2)::bigint as replicate_2_total,
                bool_or(t.cells is not null) as share_images
            from reporting.class_distribution d
            left join reporting.counted_before k
                on k.batch_key = d.batch_key and k.analysis_id = d.analysis_id and k.class_index = d.class_index
            left join (
                select batch_key, analysis_id, sum(cells)::bigint as cells from reporting.counted_before group by 1, 2
            ) t on t.batch_key = d.batch_key and t.analysis_id = d.analysis_id
            group by d.batch_key, d.lab, d.batch_id, d.received_on, d.specimen, d.stain, d.release_id, d.release_kind,
                d.class_index, d.class_name, d.region, d.class_code, d.class_name_tr
        ) counted
        -- All that names a specimen, so that a question about some of them reads no others.
        window specimens as (
            partition by batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind
        )
    ) compared
) judged
"""
CONFIDENCE_BY_SLIDE = """
create or replace view reporting.confidence_by_slide as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.stain,
    a.release_id, a.release_kind, c.cells, c.mean_confidence_pct, c.low_confidence_pct
from reporting.current_analysis a
join slide s on s.id = a.slide_key
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
cross join lateral (
    select count(*) as cells, 100 * avg(confidence)::float8 as mean_confidence_pct,
        100.0::float8 * count(*) filter (where confidence < 0.5) / count(*) as low_confidence_pct
    from cell where received_on = b.received_on and analysis_id = a.analysis_id
    having count(*) > 0
) c
"""
MORPHOMETRY_BY_SLIDE = """
create or replace view reporting.morphometry_by_slide as
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
    group by v.measure
) v
join reporting.measure m on m.measure = v.measure
-- A range that was measured after one stain holds for no other.
cross join lateral (
    select case when coalesce(m.who_stain, s.stain) = s.stain then m.who_low end as who_low,
        case when coalesce(m.who_stain, s.stain) = s.stain then m.who_high end as who_high
) w
"""
VIEWS = (REPEATED_FIELDS, COUNTED_BEFORE, SPECIMEN_DISTRIBUTION, CONFIDENCE_BY_SLIDE, MORPHOMETRY_BY_SLIDE)

COUNTED_BEFORE_BEFORE = """
create or replace view reporting.counted_before as
select b.id as batch_key, b.received_on, s.slide_code as slide_id, a.analysis_id, c.class_index, count(*) as cells
from slide s
join batch b on b.id = s.batch_id
join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')
join field f on f.slide_id = s.id
join cell c on c.received_on = b.received_on and c.analysis_id = a.analysis_id and c.field_id = f.id
where exists (
    select from field o
    join slide e on e.id = o.slide_id
    join reporting.current_analysis ea on ea.slide_key = e.id and ea.state in ('done', 'insufficient')
    where o.sha256 = f.sha256 and o.id < f.id and e.id <> s.id and e.batch_id = s.batch_id and e.specimen = s.specimen
        and e.stain = s.stain and ea.release_id = a.release_id
)
group by b.id, b.received_on, s.slide_code, a.analysis_id, c.class_index
"""
SPECIMEN_DISTRIBUTION_BEFORE = """
create or replace view reporting.specimen_distribution as
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region,
    case when joined then cells end as cells, cells_total,
    case when joined then 100.0::float8 * cells / cells_total end as pct,
    case when joined then reporting.wilson_low_pct(cells, cells_total) end as low_pct,
    case when joined then reporting.wilson_high_pct(cells, cells_total) end as high_pct,
    replicate_1_cells, replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree, class_code,
    class_name_tr
from (
    select *, coalesce(replicates_agree, true) as joined
    from (
        -- Replicates that share images say nothing of each other.
        select *, case when not bool_or(share_images) over specimens then
            bool_and(reporting.replicates_agree(replicate_1_cells, replicate_1_total, replicate_2_cells,
                replicate_2_total)) filter (where region = 'normal') over specimens
            end as replicates_agree
        from (
            select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind,
                count(distinct slide_id) as slides, count(distinct replicate) as replicates, class_index, class_name,
                region, class_code, class_name_tr, sum(cells - before)::bigint as cells,
                sum(cells_total - before_total)::bigint as cells_total,
                sum(cells) filter (where replicate = 1)::bigint as replicate_1_cells,
                sum(cells_total) filter (where replicate = 1)::bigint as replicate_1_total,
                sum(cells) filter (where replicate = 2)::bigint as replicate_2_cells,
                sum(cells_total) filter (where replicate = 2)::bigint as replicate_2_total,
                bool_or(before_total > 0) as share_images
            from (
                select d.*, coalesce(k.cells, 0) as before, coalesce((
                    select sum(n.cells) from reporting.counted_before n
                    where n.batch_key = d.batch_key and n.analysis_id = d.analysis_id
                ), 0) as before_total
                from reporting.class_distribution d
                left join reporting.counted_before k
                    on k.batch_key = d.batch_key and k.analysis_id = d.analysis_id and k.class_index = d.class_index
            ) of_slides
            group by batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, class_index,
                class_name, region, class_code, class_name_tr
        ) counted
        window specimens as (partition by batch_key, specimen, stain, release_id)
    ) compared
) judged
"""
CONFIDENCE_BY_SLIDE_BEFORE = """
create or replace view reporting.confidence_by_slide as
select batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind, count(*) as cells,
    100 * avg(confidence)::float8 as mean_confidence_pct,
    100.0::float8 * count(*) filter (where confidence < 0.5) / count(*) as low_confidence_pct
from reporting.cell
group by batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind
"""
MORPHOMETRY_BY_SLIDE_BEFORE = """
create or replace view reporting.morphometry_by_slide as
select c.batch_key, c.lab, c.batch_id, c.received_on, c.slide_id, c.specimen, c.replicate, c.stain, m.measure, m.unit,
    count(v.value) as cells_measured, count(*) as cells_total,
    percentile_cont(0.5) within group (order by v.value) as median,
    percentile_cont(0.05) within group (order by v.value) as p05,
    percentile_cont(0.95) within group (order by v.value) as p95,
    -- A range that was measured after one stain holds for no other.
    case when coalesce(m.who_stain, c.stain) = c.stain then m.who_low end as who_low,
    case when coalesce(m.who_stain, c.stain) = c.stain then m.who_high end as who_high,
    100.0::float8 * count(*) filter (where v.value between m.who_low and m.who_high)
        / nullif(count(v.value) filter (where m.who_low is not null and coalesce(m.who_stain, c.stain) = c.stain), 0)
        as within_who_pct,
    m.who_stain
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
    m.unit, m.who_low, m.who_high, m.who_stain
"""
VIEWS_BEFORE = (
    COUNTED_BEFORE_BEFORE,
    SPECIMEN_DISTRIBUTION_BEFORE,
    CONFIDENCE_BY_SLIDE_BEFORE,
    MORPHOMETRY_BY_SLIDE_BEFORE,
)

COMMENTS = {
    "view reporting.repeated_fields": "One row per slide with images that an earlier slide of its specimen has too:"
    " which these are",
    "column reporting.repeated_fields.batch_key": "Internal key of the batch; joins the views",
    "column reporting.repeated_fields.received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "column reporting.repeated_fields.slide_id": "slide_id of the manifest; unique within a batch",
    "column reporting.repeated_fields.analysis_id": "One version of a slide's analysis; joins with reporting.cell and"
    " cell_history",
    "column reporting.repeated_fields.field_keys": "Internal keys of these fields",
}


def upgrade() -> None:
    for view in VIEWS:
        _execute(view)
    for subject, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        _execute(f"comment on {subject} is '{quoted}'")


def downgrade() -> None:
    for view in VIEWS_BEFORE:
        _execute(view)
    _execute("drop view reporting.repeated_fields")


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
