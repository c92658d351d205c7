-- Shares of the classes, with Wilson intervals.

create view reporting.class_distribution as
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.specimen, s.replicate, s.stain, s.analysis_id,
    s.release_id, s.release_kind, m.class_index, m.class_name, m.region, coalesce(c.cells, 0) as cells,
    s.cells as cells_total, 100.0::float8 * coalesce(c.cells, 0) / s.cells as pct,
    reporting.wilson_low_pct(coalesce(c.cells, 0), s.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(c.cells, 0), s.cells) as high_pct, m.class_code, m.class_name_tr,
    s.cells_not_counted
from reporting.slide_result s
cross join reporting.morphology_class m
left join slide_class_count c on c.analysis_id = s.analysis_id and c.class_index = m.class_index
where s.state in ('done', 'insufficient') and s.cells > 0;
comment on view reporting.class_distribution is
    'One row per slide and class, 18 rows per slide: cells, share and its Wilson interval';


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
    'One row per slide and region of the primary defect (head, neck, tail, or normal): they add up';


create view reporting.repeated_fields as
select i.batch_key, i.received_on, i.slide_id, a.analysis_id,
    array_agg(distinct i.field_key order by i.field_key) as field_keys
from reporting.same_image i
join slide s on s.id = i.slide_key
join slide e on e.id = i.other_slide_key and e.stain = s.stain
join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')
join reporting.current_analysis ea on ea.slide_key = e.id and ea.state in ('done', 'insufficient')
    and ea.release_id = a.release_id
-- Where it is set aside there, its cells are counted here alone.
join field_result er on er.analysis_id = ea.analysis_id and er.field_id = i.other_field_key and er.reason is null
where i.other_field_key < i.field_key and i.other_batch_key = i.batch_key and i.other_specimen = i.specimen
group by i.batch_key, i.received_on, i.slide_id, a.analysis_id;
comment on view reporting.repeated_fields is
    'One row per slide with images that an earlier slide of its specimen has too: which these are';


create view reporting.counted_before as
select r.batch_key, r.received_on, r.slide_id, r.analysis_id, c.class_index, c.cells
from reporting.repeated_fields r
-- For each slide, so that no cells of others are read.
cross join lateral (
    select class_index, count(*) as cells from cell
    where received_on = r.received_on and analysis_id = r.analysis_id and field_id = any(r.field_keys)
        and not_counted is null
    group by class_index
) c;
comment on view reporting.counted_before is
    'One row per slide and class: cells of images that an earlier slide of the specimen has too, which count once in it';


create view reporting.specimen_distribution as
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region,
    case when joined then cells end as cells, cells_total,
    case when joined then 100.0::float8 * cells / cells_total end as pct,
    case when joined then reporting.wilson_low_pct(cells, cells_total) end as low_pct,
    case when joined then reporting.wilson_high_pct(cells, cells_total) end as high_pct,
    replicate_1_cells, replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree, class_code,
    class_name_tr, cells_not_counted
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
                bool_or(t.cells is not null) as share_images, sum(d.cells_not_counted)::bigint as cells_not_counted
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
) judged;
comment on view reporting.specimen_distribution is
    'One row per specimen and class, the replicates of one batch, stain and release joined unless they disagree';
