"""Classes have a code and names for readers; only Normal has a LOINC code; a WHO range holds for its stain alone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# index, code, name for readers of English and of Turkish; the name before
CLASSES = (
    (0, "amorphous_head", "Amorphous head", "Amorf baş", "AmorfHead"),
    (1, "asymmetric_neck", "Asymmetric neck", "Asimetrik boyun", "AsymmetricNeck"),
    (2, "curly_tail", "Curly tail", "Kıvrık kuyruk", "CurlyTail"),
    (3, "double_head", "Double head", "Çift baş", "DoubleHead"),
    (4, "double_tail", "Double tail", "Çift kuyruk", "DoubleTail"),
    (5, "long_tail", "Long tail", "Uzun kuyruk", "LongTail"),
    (6, "narrow_acrosome", "Narrow acrosome", "Dar akrozom", "NarrowAcrosome"),
    (7, "normal", "Normal", "Normal", "Normal"),
    (8, "pin_head", "Pin head", "İğne baş", "PinHead"),
    (9, "pyriform_head", "Pyriform head", "Armut baş", "PyriformHead"),
    (10, "round_head", "Round head", "Yuvarlak baş", "RoundHead"),
    (11, "short_tail", "Short tail", "Kısa kuyruk", "ShortTail"),
    (12, "tapered_head", "Tapered head", "Konik baş", "TaperedHead"),
    (13, "thick_neck", "Thick neck", "Kalın boyun", "ThickNeck"),
    (14, "thin_neck", "Thin neck", "İnce boyun", "ThinNeck"),
    (15, "twisted_neck", "Twisted neck", "Bükülmüş boyun", "TwistedNeck"),
    (16, "twisted_tail", "Twisted tail", "Bükülmüş kuyruk", "TwistedTail"),
    (17, "vacuolated_head", "Vacuolated head", "Vakuollü baş", "VacuolatedHead"),
)
# LOINC codes that stood with single defects, though they count every cell that has the defect
LOINC_BEFORE = {
    0: "10606-2",
    2: "10607-0",
    3: "10609-6",
    4: "10610-4",
    8: "10623-7",
    9: "10593-2",
    10: "10625-2",
    12: "10594-0",
    17: "10629-4",
}
REGION_LOINC_BEFORE = {"none": "10622-9", "head": "10602-1", "neck": "10603-9", "tail": "10604-7"}
AFTER_PAPANICOLAOU = "head_length_um", "head_width_um", "ellipticity"

VIEWS = {
    "slide_result": """
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
    later.detail as later_detail
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
""",
    "class_distribution": """
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.specimen, s.replicate, s.stain, s.analysis_id,
    s.release_id, s.release_kind, m.class_index, m.class_name, m.region, coalesce(c.cells, 0) as cells,
    s.cells as cells_total, 100.0::float8 * coalesce(c.cells, 0) / s.cells as pct,
    reporting.wilson_low_pct(coalesce(c.cells, 0), s.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(c.cells, 0), s.cells) as high_pct, m.class_code, m.class_name_tr
from reporting.slide_result s
cross join reporting.morphology_class m
left join slide_class_count c on c.analysis_id = s.analysis_id and c.class_index = m.class_index
where s.state in ('done', 'insufficient') and s.cells > 0
""",
    "specimen_distribution": """
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
        select *, bool_and(reporting.replicates_agree(replicate_1_cells, replicate_1_total, replicate_2_cells,
                replicate_2_total)) filter (where region = 'normal')
            over (partition by batch_key, specimen, stain, release_id) as replicates_agree
        from (
            select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind,
                count(distinct slide_id) as slides, count(distinct replicate) as replicates, class_index, class_name,
                region, class_code, class_name_tr, sum(cells)::bigint as cells, sum(cells_total)::bigint as cells_total,
                sum(cells) filter (where replicate = 1)::bigint as replicate_1_cells,
                sum(cells_total) filter (where replicate = 1)::bigint as replicate_1_total,
                sum(cells) filter (where replicate = 2)::bigint as replicate_2_cells,
                sum(cells_total) filter (where replicate = 2)::bigint as replicate_2_total
            from reporting.class_distribution
            group by batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, class_index,
                class_name, region, class_code, class_name_tr
        ) counted
    ) compared
) judged
""",
    "cell": """
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, s.um_per_px, a.release_id, a.release_kind, a.analysis_id, c.number, c.field_id as field_key,
    f.position as field_position, f.key as field, c.x0, c.y0, c.x1, c.y1, c.class_index, m.class_name, m.region,
    c.confidence, c.probabilities, c.efficientnetv2_s_logits, c.resnetv2_50_logits, c.head_outline, c.head_length_um,
    c.head_width_um, c.head_area_um2, c.head_perimeter_um, c.ellipticity, c.elongation, c.roughness, c.regularity,
    c.acrosome_share, c.vacuole_share, c.midpiece_width_um, c.midpiece_angle_deg,
    m.class_code, m.class_name_tr
from cell c
join reporting.current_analysis a on a.analysis_id = c.analysis_id
join slide s on s.id = a.slide_key
-- With the day, only that month's partition is read.
join batch b on b.id = s.batch_id and b.received_on = c.received_on
join lab l on l.id = b.lab_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
""",
    "morphometry_by_slide": """
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
""",
    "analysis_history": """
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, s.stain, a.id as analysis_id, a.version,
    c.analysis_id is not null as counts, a.state, a.reason, a.detail, a.queued_at, a.asked_by, a.why, a.started_at,
    a.finished_at, a.release_id, r.kind as release_kind, a.fused_from, a.made_with ->> 'software' as software,
    a.made_with ->> 'detector' as detector, a.made_with ->> 'form' as form, a.made_with -> 'settings' as settings,
    encode(sha256(convert_to(a.made_with::text, 'UTF8')), 'hex') as made_with_sha256, a.cells_classified as cells,
    a.cells_on_border as on_border, a.objects_rejected, n.cells as normal_cells,
    100.0::float8 * n.cells / nullif(a.cells_classified, 0) as normal_pct,
    reporting.wilson_low_pct(n.cells, a.cells_classified) as normal_low_pct,
    reporting.wilson_high_pct(n.cells, a.cells_classified) as normal_high_pct
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
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
""",
    "class_history": """
select h.batch_key, h.lab, h.batch_id, h.received_on, h.slide_key, h.slide_id, h.analysis_id, h.version, h.counts,
    h.release_id, h.release_kind, m.class_index, m.class_name, m.region, coalesce(k.cells, 0) as cells,
    h.cells as cells_total, 100.0::float8 * coalesce(k.cells, 0) / h.cells as pct,
    reporting.wilson_low_pct(coalesce(k.cells, 0), h.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(k.cells, 0), h.cells) as high_pct, m.class_code, m.class_name_tr
from reporting.analysis_history h
cross join reporting.morphology_class m
left join slide_class_count k on k.analysis_id = h.analysis_id and k.class_index = m.class_index
where h.state in ('done', 'insufficient') and h.cells > 0
""",
    "cell_history": """
select h.batch_key, h.lab, h.batch_id, c.received_on, h.slide_id, h.analysis_id, h.version, h.counts, h.release_id,
    h.release_kind, c.number, c.field_id as field_key, f.position as field_position, f.key as field, c.x0, c.y0, c.x1,
    c.y1, c.class_index, m.class_name, m.region, c.confidence, c.probabilities, c.efficientnetv2_s_logits,
    c.resnetv2_50_logits, c.head_outline, m.class_code, m.class_name_tr
from reporting.analysis_history h
-- With the day, only that month's partition is read.
join cell c on c.received_on = h.received_on and c.analysis_id = h.analysis_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
""",
}
VIEW_COMMENTS = {
    "region_share": ("One row per slide and region of the primary defect (head, neck, tail, or normal): they add up"),
    "morphometry_by_slide": (
        "One row per slide and measure: median, 5th and 95th percentile, beside the WHO range for the stain"
    ),
}
# `view.column` goes before `column`
COMMENTS = {
    "class_code": "The class, for programs; of a cell, the one with the largest fused probability",
    "class_name": "The class, for readers of English",
    "class_name_tr": "The class, for readers of Turkish",
    "loinc": "LOINC code; null: none found that counts the same",
    "normal_pct": "Normal forms, %; WHO 6th edition: 5th centile 4 %, not a limit",
    "region": "Where the primary defect sits: head, neck, tail; normal: normal form",
    "who_high": "Upper end of the WHO range; null: there is none for the stain",
    "who_low": "Lower end of the WHO range; null: there is none for the stain",
    "measure.who_high": "Upper end of the WHO range; null: there is none",
    "measure.who_low": "Lower end of the WHO range; null: there is none",
    "who_stain": "Stain after which the WHO range was measured, and for no other does it hold; null: any",
}

VIEWS_BEFORE = {
    "slide_result": """
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
    later.detail as later_detail
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis a on a.slide_key = s.id
left join reporting.latest_analysis later on later.slide_key = s.id and later.version > a.version
left join lateral (
    select coalesce(sum(c.cells), 0)::bigint as cells
    from slide_class_count c join reporting.morphology_class m using (class_index)
    where c.analysis_id = a.analysis_id and m.region = 'none'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
""",
    "class_distribution": """
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.specimen, s.replicate, s.stain, s.analysis_id,
    s.release_id, s.release_kind, m.class_index, m.name as class_name, m.region, coalesce(c.cells, 0) as cells,
    s.cells as cells_total, 100.0::float8 * coalesce(c.cells, 0) / s.cells as pct,
    reporting.wilson_low_pct(coalesce(c.cells, 0), s.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(c.cells, 0), s.cells) as high_pct
from reporting.slide_result s
cross join reporting.morphology_class m
left join slide_class_count c on c.analysis_id = s.analysis_id and c.class_index = m.class_index
where s.state in ('done', 'insufficient') and s.cells > 0
""",
    "region_share": """
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, region, sum(cells)::bigint as cells, cells_total,
    100.0::float8 * sum(cells) / cells_total as pct,
    reporting.wilson_low_pct(sum(cells)::bigint, cells_total) as low_pct,
    reporting.wilson_high_pct(sum(cells)::bigint, cells_total) as high_pct
from reporting.class_distribution
group by batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, region, cells_total
""",
    "specimen_distribution": """
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region,
    case when joined then cells end as cells, cells_total,
    case when joined then 100.0::float8 * cells / cells_total end as pct,
    case when joined then reporting.wilson_low_pct(cells, cells_total) end as low_pct,
    case when joined then reporting.wilson_high_pct(cells, cells_total) end as high_pct,
    replicate_1_cells, replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree
from (
    select *, coalesce(replicates_agree, true) as joined
    from (
        select *, bool_and(reporting.replicates_agree(replicate_1_cells, replicate_1_total, replicate_2_cells,
                replicate_2_total)) filter (where region = 'none')
            over (partition by batch_key, specimen, stain, release_id) as replicates_agree
        from (
            select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind,
                count(distinct slide_id) as slides, count(distinct replicate) as replicates, class_index, class_name,
                region, sum(cells)::bigint as cells, sum(cells_total)::bigint as cells_total,
                sum(cells) filter (where replicate = 1)::bigint as replicate_1_cells,
                sum(cells_total) filter (where replicate = 1)::bigint as replicate_1_total,
                sum(cells) filter (where replicate = 2)::bigint as replicate_2_cells,
                sum(cells_total) filter (where replicate = 2)::bigint as replicate_2_total
            from reporting.class_distribution
            group by batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, class_index,
                class_name, region
        ) counted
    ) compared
) judged
""",
    "cell": """
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
join reporting.morphology_class m on m.class_index = c.class_index
""",
    "confidence_by_slide": """
select batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind, count(*) as cells,
    100 * avg(confidence)::float8 as mean_confidence_pct,
    100.0::float8 * count(*) filter (where confidence < 0.5) / count(*) as low_confidence_pct
from reporting.cell
group by batch_key, lab, batch_id, received_on, slide_id, stain, release_id, release_kind
""",
    "morphometry_by_slide": """
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
    m.unit, m.who_low, m.who_high
""",
    "analysis_history": """
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, s.stain, a.id as analysis_id, a.version,
    c.analysis_id is not null as counts, a.state, a.reason, a.detail, a.queued_at, a.asked_by, a.why, a.started_at,
    a.finished_at, a.release_id, r.kind as release_kind, a.fused_from, a.made_with ->> 'software' as software,
    a.made_with ->> 'detector' as detector, a.made_with ->> 'form' as form, a.made_with -> 'settings' as settings,
    encode(sha256(convert_to(a.made_with::text, 'UTF8')), 'hex') as made_with_sha256, a.cells_classified as cells,
    a.cells_on_border as on_border, a.objects_rejected, n.cells as normal_cells,
    100.0::float8 * n.cells / nullif(a.cells_classified, 0) as normal_pct,
    reporting.wilson_low_pct(n.cells, a.cells_classified) as normal_low_pct,
    reporting.wilson_high_pct(n.cells, a.cells_classified) as normal_high_pct
from analysis a
join model_release r on r.id = a.release_id
join slide s on s.id = a.slide_id
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis c on c.analysis_id = a.id and a.state in ('done', 'insufficient')
left join lateral (
    select coalesce(sum(k.cells), 0)::bigint as cells
    from slide_class_count k join reporting.morphology_class m using (class_index)
    where k.analysis_id = a.id and m.region = 'none'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
""",
    "class_history": """
select h.batch_key, h.lab, h.batch_id, h.received_on, h.slide_key, h.slide_id, h.analysis_id, h.version, h.counts,
    h.release_id, h.release_kind, m.class_index, m.name as class_name, m.region, coalesce(k.cells, 0) as cells,
    h.cells as cells_total, 100.0::float8 * coalesce(k.cells, 0) / h.cells as pct,
    reporting.wilson_low_pct(coalesce(k.cells, 0), h.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(k.cells, 0), h.cells) as high_pct
from reporting.analysis_history h
cross join reporting.morphology_class m
left join slide_class_count k on k.analysis_id = h.analysis_id and k.class_index = m.class_index
where h.state in ('done', 'insufficient') and h.cells > 0
""",
    "cell_history": """
select h.batch_key, h.lab, h.batch_id, c.received_on, h.slide_id, h.analysis_id, h.version, h.counts, h.release_id,
    h.release_kind, c.number, c.field_id as field_key, f.position as field_position, f.key as field, c.x0, c.y0, c.x1,
    c.y1, c.class_index, m.name as class_name, m.region, c.confidence, c.probabilities, c.efficientnetv2_s_logits,
    c.resnetv2_50_logits, c.head_outline
from reporting.analysis_history h
-- With the day, only that month's partition is read.
join cell c on c.received_on = h.received_on and c.analysis_id = h.analysis_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
""",
}
VIEW_COMMENTS_BEFORE = {
    "class_distribution": "One row per slide and class, 18 rows per slide: cells, share and its Wilson interval",
    "region_share": (
        "One row per slide and region of the defect (head, neck, tail; none: normal forms). One"
        " class per cell, so they add up"
    ),
    "specimen_distribution": (
        "One row per specimen and class, the replicates of one batch, stain and release joined unless they disagree"
    ),
    "cell": ("One row per classified cell of the analyses that count; give a received_on range to read few partitions"),
    "confidence_by_slide": (
        "One row per slide: how sure the networks are of its cells; a fall over weeks is the first sign of drift"
    ),
    "morphometry_by_slide": (
        "One row per slide and measure: median, 5th and 95th percentile of the cells measured, beside the WHO range"
    ),
    "class_history": (
        "One row per analysis with a result and class, 18 rows per analysis: cells, share and its Wilson interval"
    ),
    "cell_history": (
        "One row per classified cell of every analysis, also of those that count no more; give a received_on range"
    ),
}
COMMENTS_BEFORE = {
    "head_length_um": "Long side of the minimum-area rectangle, µm; null where it cannot be measured on this cell",
    "head_width_um": "Short side of the minimum-area rectangle, µm; null where it cannot be measured on this cell",
    "head_area_um2": "Area of the head, µm²; null where it cannot be measured on this cell",
    "head_perimeter_um": "Perimeter of the head, µm; null where it cannot be measured on this cell",
    "ellipticity": "Length ÷ width, ratio; null where it cannot be measured on this cell",
    "elongation": "(length − width) ÷ (length + width), ratio; null where it cannot be measured on this cell",
    "roughness": "4π·area ÷ perimeter², ratio; null where it cannot be measured on this cell",
    "regularity": "π·length·width ÷ (4·area), ratio; null where it cannot be measured on this cell",
    "acrosome_share": "Acrosome area ÷ head area, 0 to 1, share; null where it cannot be measured on this cell",
    "vacuole_share": "Vacuole area ÷ head area, 0 to 1, share; null where it cannot be measured on this cell",
    "midpiece_width_um": "Width of the midpiece at its insertion, µm; null where it cannot be measured on this cell",
    "midpiece_angle_deg": (
        "Angle between midpiece and long axis of the head, 0 to 90, degrees; null where it cannot be"
        " measured on this cell"
    ),
    "analysis_id": "One version of a slide's analysis; joins with reporting.cell and cell_history",
    "batch_id": "batch_id of the manifest; unique within a lab",
    "batch_key": "Internal key of the batch; joins the views",
    "cells": "Classified cells",
    "class_distribution.cells": "Cells of the class",
    "class_history.cells": "Cells of the class",
    "specimen_distribution.cells": "Cells of the class in all replicates; null, as pct, where they disagree",
    "region_share.cells": "Cells whose class belongs to the region",
    "cells_measured": "Cells on which the measure could be taken",
    "cells_total": "All classified cells: the denominator of pct",
    "specimen_distribution.cells_total": "All classified cells of all replicates: the denominator of pct",
    "morphometry_by_slide.cells_total": "All classified cells of the slide",
    "class_history.cells_total": "All classified cells of the analysis: the denominator of pct",
    "class_index": "Index in every array of logits and probabilities, from 0",
    "class_name": "Class with the largest fused probability",
    "class_distribution.class_name": "Name of the class",
    "class_history.class_name": "Name of the class",
    "specimen_distribution.class_name": "Name of the class",
    "counts": "Its cells are those of the slide in every other view",
    "confidence": "Largest fused probability, 0 to 1",
    "efficientnetv2_s_logits": "Logits of EfficientNetV2-S, in class index order",
    "field": "Object key of the image, relative to the batch",
    "field_key": "Internal key of the field",
    "field_position": "Order of the field in the manifest, from 0",
    "head_outline": "Outline of the head: little-endian uint16 x, y pairs, pixels of the field",
    "high_pct": "Upper bound of the 95 % Wilson interval of pct",
    "lab": "Code of the laboratory",
    "loinc": "LOINC code of the class; null: none exists",
    "low_confidence_pct": "Cells with a confidence below 0.5, %",
    "low_pct": "Lower bound of the 95 % Wilson interval of pct",
    "mean_confidence_pct": "Mean confidence, %",
    "measure": "Name of the measure: a column of reporting.cell",
    "median": "Median over the cells measured",
    "name": "Name of the class",
    "normal_pct": "Normal forms, %; the WHO lower reference limit is 4 %",
    "number": "Number of the cell in its analysis, from 1",
    "p05": "5th percentile over the cells measured",
    "p95": "95th percentile over the cells measured",
    "pct": "Share of cells_total, %",
    "position": "Order of the slide in the manifest, from 0",
    "probabilities": "Fused probabilities, in class index order",
    "received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "region": "Where the defect sits: head, neck, tail; none: normal form",
    "region_loinc": "LOINC code of the region's total",
    "release_id": "Release of the networks",
    "release_kind": "untrained and demonstration: the classes mean nothing",
    "replicate": "1 or 2",
    "replicate_1_cells": "Cells of the class in replicate 1",
    "replicate_1_total": "All classified cells of replicate 1",
    "replicate_2_cells": "Cells of the class in replicate 2",
    "replicate_2_total": "All classified cells of replicate 2",
    "replicates": "Replicates with a result",
    "replicates_agree": "They agree on the normal forms; null: not assessable, fewer than 200 cells in one",
    "resnetv2_50_logits": "Logits of ResNet50V2, in class index order",
    "slide_id": "slide_id of the manifest; unique within a batch",
    "slide_key": "Internal key of the slide",
    "slides": "Slides",
    "specimen": "Pseudonym of the specimen",
    "stain": "Stain of the slide",
    "state": "queued, running, done, insufficient or quarantined",
    "um_per_px": "Micrometres per pixel of its fields",
    "unit": "Unit of the measure",
    "version": "Version of the slide's analysis, from 1",
    "who_high": "Upper end of the WHO reference range; null: there is none",
    "who_low": "Lower end of the WHO reference range; null: there is none",
    "within_who_pct": "Measured cells inside the WHO range, %; null: there is no range",
    "x0": "Head box, pixels of the field: left",
    "x1": "Head box, pixels of the field: right, exclusive",
    "y0": "Head box, pixels of the field: top",
    "y1": "Head box, pixels of the field: bottom, exclusive",
    "quality_by_field.cells": "Cells found whole in the field",
    "measure.position": "Order in reports",
    "release.slides": "Slides analysed under it, open ones among them",
    "outstanding.slides": "Both together",
    "batch_overview.state": "analysing, complete, complete_with_errors or rejected",
}


def upgrade() -> None:
    _rename_column("name", "class_name")
    op.add_column("morphology_class", sa.Column("class_code", sa.String()), schema="reporting")
    op.add_column("morphology_class", sa.Column("class_name_tr", sa.String()), schema="reporting")
    classes = sa.text(
        "update reporting.morphology_class set class_code = :code, class_name = :english, class_name_tr = :turkish"
        " where class_index = :index"
    )
    for index, code, english, turkish, _ in CLASSES:
        op.execute(classes.bindparams(index=index, code=code, english=english, turkish=turkish))
    op.execute("update reporting.morphology_class set region = 'normal' where region = 'none'")
    op.execute("update reporting.morphology_class set loinc = null where region <> 'normal'")
    op.alter_column("morphology_class", "class_code", nullable=False, schema="reporting")
    op.alter_column("morphology_class", "class_name_tr", nullable=False, schema="reporting")
    op.create_unique_constraint(
        op.f("uq_morphology_class_class_code"), "morphology_class", ["class_code"], schema="reporting"
    )
    op.drop_column("morphology_class", "region_loinc", schema="reporting")
    op.add_column("measure", sa.Column("who_stain", sa.String()), schema="reporting")
    op.execute(
        sa.text("update reporting.measure set who_stain = 'papanicolaou' where measure = any(:measures)").bindparams(
            measures=list(AFTER_PAPANICOLAOU)
        )
    )
    for view, select in VIEWS.items():
        op.execute(f"create or replace view reporting.{view} as {select}")
    for view, comment in VIEW_COMMENTS.items():
        op.execute(f"comment on view reporting.{view} is '{comment}'")
    _comment_columns(COMMENTS)


def downgrade() -> None:
    for view in reversed(VIEW_COMMENTS_BEFORE):
        op.execute(f"drop view reporting.{view}")
    op.execute("update reporting.morphology_class set region = 'none' where region = 'normal'")
    for view in ("slide_result", "analysis_history"):
        op.execute(f"create or replace view reporting.{view} as {VIEWS_BEFORE[view]}")
    op.drop_column("measure", "who_stain", schema="reporting")
    op.drop_column("morphology_class", "class_code", schema="reporting")
    op.drop_column("morphology_class", "class_name_tr", schema="reporting")
    _rename_column("class_name", "name")
    op.add_column("morphology_class", sa.Column("region_loinc", sa.String()), schema="reporting")
    names = sa.text(
        "update reporting.morphology_class set name = :name, loinc = coalesce(:loinc, loinc) where class_index = :index"
    )
    for index, *_, name in CLASSES:
        op.execute(names.bindparams(index=index, name=name, loinc=LOINC_BEFORE.get(index)))
    for region, loinc in REGION_LOINC_BEFORE.items():
        op.execute(
            sa.text("update reporting.morphology_class set region_loinc = :loinc where region = :region").bindparams(
                loinc=loinc, region=region
            )
        )
    op.alter_column("morphology_class", "region_loinc", nullable=False, schema="reporting")
    for view, comment in VIEW_COMMENTS_BEFORE.items():
        op.execute(f"create view reporting.{view} as {VIEWS_BEFORE[view]}")
        op.execute(f"comment on view reporting.{view} is '{comment}'")
        # In the order in which earlier revisions granted it.
        op.execute(f"revoke select on reporting.{view} from morphbatch_analyst, morphbatch_service")
        op.execute(f"grant select on reporting.{view} to morphbatch_analyst")
        op.execute(f"grant select on reporting.{view} to morphbatch_service")
    _comment_columns(COMMENTS_BEFORE)


def _rename_column(name: str, to: str) -> None:
    """Newer servers name the constraint `not null` after the column, and a new one is named after the new name."""
    op.alter_column("morphology_class", name, nullable=True, schema="reporting")
    op.alter_column("morphology_class", name, new_column_name=to, schema="reporting")
    op.alter_column("morphology_class", to, nullable=False, schema="reporting")


def _comment_columns(comments: dict[str, str]) -> None:
    columns = op.get_bind().execute(
        sa.text("select table_name, column_name from information_schema.columns where table_schema = 'reporting'")
    )
    for relation, column in columns.all():
        comment = comments.get(f"{relation}.{column}") or comments.get(column)
        if comment is not None:
            quoted = comment.replace("'", "''")
            op.execute(sa.text(f"comment on column reporting.{relation}.{column} is '{quoted}'"))
