-- Every analysis that there was: who asked for it, what it was made with, what came of it. None is ever changed.

create view reporting.analysis_history as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, s.stain, a.id as analysis_id, a.version,
    c.analysis_id is not null as counts, a.state, a.reason, a.detail, a.queued_at, a.asked_by, a.why, a.started_at,
    a.finished_at, a.release_id, r.kind as release_kind, a.fused_from, a.made_with ->> 'software' as software,
    a.made_with ->> 'detector' as detector, a.made_with ->> 'form' as form, a.made_with -> 'settings' as settings,
    encode(sha256(convert_to(a.made_with::text, 'UTF8')), 'hex') as made_with_sha256, a.cells_classified as cells,
    a.cells_on_border as on_border, a.objects_rejected, n.cells as normal_cells,
    100.0::float8 * n.cells / nullif(a.cells_classified, 0) as normal_pct,
    reporting.wilson_low_pct(n.cells, a.cells_classified) as normal_low_pct,
    reporting.wilson_high_pct(n.cells, a.cells_classified) as normal_high_pct,
    reporting.sum_of(a.not_counted_by_reason) as cells_not_counted, a.not_counted_by_reason
from analysis a
join model_release r on r.id = a.release_id
join slide s on s.id = a.slide_id
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis c on c.analysis_id = a.id and a.state in ('done', 'insufficient')
left join lateral (
    select coalesce(sum(k.cells), 0)::bigint as cells
    from slide_class_count k join reporting.morphology_class m using (class_index)
    where k.analysis_id = a.id and m.region = 'normal'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0;
comment on view reporting.analysis_history is
    'One row per analysis that was ever asked for, the latest version of a slide being one of them; none is changed';


create view reporting.class_history as
select h.batch_key, h.lab, h.batch_id, h.received_on, h.slide_key, h.slide_id, h.analysis_id, h.version, h.counts,
    h.release_id, h.release_kind, m.class_index, m.class_name, m.region, coalesce(k.cells, 0) as cells,
    h.cells as cells_total, 100.0::float8 * coalesce(k.cells, 0) / h.cells as pct,
    reporting.wilson_low_pct(coalesce(k.cells, 0), h.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(k.cells, 0), h.cells) as high_pct, m.class_code, m.class_name_tr
from reporting.analysis_history h
cross join reporting.morphology_class m
left join slide_class_count k on k.analysis_id = h.analysis_id and k.class_index = m.class_index
where h.state in ('done', 'insufficient') and h.cells > 0;
comment on view reporting.class_history is
    'One row per analysis with a result and class, 18 rows per analysis: cells, share and its Wilson interval';


create view reporting.cell_history as
select h.batch_key, h.lab, h.batch_id, c.received_on, h.slide_id, h.analysis_id, h.version, h.counts, h.release_id,
    h.release_kind, c.number, c.field_id as field_key, f.position as field_position, f.key as field, c.x0, c.y0, c.x1,
    c.y1, c.class_index, m.class_name, m.region, c.confidence, c.probabilities, c.efficientnetv2_s_logits,
    c.resnetv2_50_logits, c.head_outline, m.class_code, m.class_name_tr, c.crop_inside_share, c.not_counted
from reporting.analysis_history h
-- With the day, only that month's partition is read.
join cell c on c.received_on = h.received_on and c.analysis_id = h.analysis_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index;
comment on view reporting.cell_history is
    'One row per classified cell of every analysis, also of those that count no more; give a received_on range';
