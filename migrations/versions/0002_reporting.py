"""Schema `reporting`: the views that analysts use, and the role that sees nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A role belongs to the whole server: another database may have made it, or be making it at this moment.
MAKE_ANALYST = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'morphbatch_analyst') then
        create role morphbatch_analyst nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception using errcode = 'insufficient_privilege', message =
            'role morphbatch_analyst is missing and this role may not create it:'
            ' run migrations/roles.sql as a superuser in this database, then migrate again';
end $$;
"""

# class_index, name, region, loinc, region_loinc
CLASSES = (
    (0, "AmorfHead", "head", "10606-2", "10602-1"),
    (1, "AsymmetricNeck", "neck", None, "10603-9"),
    (2, "CurlyTail", "tail", "10607-0", "10604-7"),
    (3, "DoubleHead", "head", "10609-6", "10602-1"),
    (4, "DoubleTail", "tail", "10610-4", "10604-7"),
    (5, "LongTail", "tail", None, "10604-7"),
    (6, "NarrowAcrosome", "head", None, "10602-1"),
    (7, "Normal", "none", "10622-9", "10622-9"),
    (8, "PinHead", "head", "10623-7", "10602-1"),
    (9, "PyriformHead", "head", "10593-2", "10602-1"),
    (10, "RoundHead", "head", "10625-2", "10602-1"),
    (11, "ShortTail", "tail", None, "10604-7"),
    (12, "TaperedHead", "head", "10594-0", "10602-1"),
    (13, "ThickNeck", "neck", None, "10603-9"),
    (14, "ThinNeck", "neck", None, "10603-9"),
    (15, "TwistedNeck", "neck", None, "10603-9"),
    (16, "TwistedTail", "tail", None, "10604-7"),
    (17, "VacuolatedHead", "head", "10629-4", "10602-1"),
)

SIZE = "WHO laboratory manual: normal heads, Papanicolaou stain, 95 % interval (at second hand)"
ACROSOME = "WHO laboratory manual: criteria of a normal head (Menkveld et al. 2001; at second hand)"

# measure, unit, meaning, who_low, who_high, source; in order of position
MEASURES = (
    ("head_length_um", "µm", "Long side of the minimum-area rectangle", 3.7, 4.7, SIZE),
    ("head_width_um", "µm", "Short side of the minimum-area rectangle", 2.5, 3.2, SIZE),
    ("head_area_um2", "µm²", "Area of the head", None, None, None),
    ("head_perimeter_um", "µm", "Perimeter of the head", None, None, None),
    ("ellipticity", "ratio", "Length ÷ width", 1.3, 1.8, SIZE),
    ("elongation", "ratio", "(length − width) ÷ (length + width)", None, None, None),
    ("roughness", "ratio", "4π·area ÷ perimeter²", None, None, None),
    ("regularity", "ratio", "π·length·width ÷ (4·area)", None, None, None),
    ("acrosome_share", "share", "Acrosome area ÷ head area, 0 to 1", 0.4, 0.7, ACROSOME),
    ("vacuole_share", "share", "Vacuole area ÷ head area, 0 to 1", None, None, None),
    ("midpiece_width_um", "µm", "Width of the midpiece at its insertion", None, None, None),
    ("midpiece_angle_deg", "degrees", "Angle between midpiece and long axis of the head, 0 to 90", None, None, None),
)

# `view.column` goes before `column`
COLUMN_COMMENTS = {
    "analysis_id": "The slide under its release; joins with reporting.cell",
    "attempts": "Times the analysis was started",
    "batch_id": "batch_id of the manifest; unique within a lab",
    "batch_key": "Internal key of the batch; joins the views",
    "cells": "Classified cells",
    "class_distribution.cells": "Cells of the class",
    "specimen_distribution.cells": "Cells of the class in all replicates",
    "region_share.cells": "Cells whose class belongs to the region",
    "quality_by_field.cells": "Cells found whole in the field",
    "cells_classified": "Classified cells",
    "cells_measured": "Cells on which the measure could be taken",
    "cells_on_border": "Heads cut by the border of a field: counted, not classified",
    "cells_per_second": "Cells over the time from the first start to the last end",
    "cells_total": "All classified cells: the denominator of pct",
    "specimen_distribution.cells_total": "All classified cells of all replicates: the denominator of pct",
    "morphometry_by_slide.cells_total": "All classified cells of the slide",
    "class_index": "Index in every array of logits and probabilities, from 0",
    "class_name": "Class with the largest fused probability",
    "class_distribution.class_name": "Name of the class",
    "specimen_distribution.class_name": "Name of the class",
    "clipped_pct": "Pixels at the ends of the scale, %",
    "closed_at": "When the batch was complete",
    "confidence": "Largest fused probability, 0 to 1",
    "created_at": "When it was recorded",
    "crop_px": "Side of a crop, pixels",
    "crop_um": "Side of a crop, µm",
    "active": "New slides are analysed under it",
    "background_pct": "Luminance of the background, % of full scale",
    "busy_seconds": "Seconds of work, slides added up",
    "data_fingerprint": "SHA-256 of the training data's list; null: no data was used",
    "detail": "What was wrong and what to do, for people",
    "efficientnetv2_s_logits": "Logits of EfficientNetV2-S, in class index order",
    "exposure_pct": "Mean luminance, % of full scale",
    "fewer_than_200_cells": "Fewer cells than the WHO manual asks of a replicate; null without a result",
    "field": "Object key of the image, relative to the batch",
    "field_key": "Internal key of the field",
    "field_position": "Order of the field in the manifest, from 0",
    "fields": "Images in the manifest",
    "fields_set_aside": "Images that could not be used, each with its reason in quality_by_field",
    "fields_used": "Images whose cells were counted",
    "finished_at": "End of the analysis",
    "first_started_at": "Start of the first slide",
    "flags": "Warnings about the image",
    "focus_um": "Width of the sharpest edges, µm: smaller is sharper",
    "fusion_alpha": "Weight of EfficientNetV2-S in the fused logits, 0 to 1",
    "git_commit": "Commit of the training code; null: untrained",
    "head_outline": "Outline of the head: little-endian uint16 x, y pairs, pixels of the field",
    "height_px": "Height of the image, pixels",
    "high_pct": "Upper bound of the 95 % Wilson interval of pct",
    "kind": "untrained, demonstration or trained",
    "quality_by_field.kind": "field: a microscope field; crop: an image of one cell",
    "lab": "Code of the laboratory",
    "last_finished_at": "End of the last slide",
    "loinc": "LOINC code of the class; null: none exists",
    "low_confidence_pct": "Cells with a confidence below 0.5, %",
    "low_pct": "Lower bound of the 95 % Wilson interval of pct",
    "mean_confidence_pct": "Mean confidence, %",
    "meaning": "What is measured",
    "measure": "Name of the measure: a column of reporting.cell",
    "median": "Median over the cells measured",
    "metrics": "Metrics of the release, with the data they were measured on",
    "name": "Name of the class",
    "night": "Evening of the night, from noon to noon UTC",
    "normal_cells": "Cells of class Normal; null without a result",
    "normal_high_pct": "Upper bound of the 95 % Wilson interval of normal_pct",
    "normal_low_pct": "Lower bound of the 95 % Wilson interval of normal_pct",
    "normal_pct": "Normal forms, %; the WHO lower reference limit is 4 %",
    "not_for_use": "A slide was classified by untrained or demonstration networks: its classes mean nothing",
    "notes": "What had to be converted on decoding",
    "number": "Number of the cell in its analysis, from 1",
    "objects_rejected": "Debris and other objects left out",
    "on_border": "Heads cut by the border of a field: counted, not classified",
    "p05": "5th percentile over the cells measured",
    "p95": "95th percentile over the cells measured",
    "pct": "Share of cells_total, %",
    "measure.position": "Order in reports",
    "position": "Order of the slide in the manifest, from 0",
    "probabilities": "Fused probabilities, in class index order",
    "queued_at": "When it was queued",
    "reason": "Code of why: of the quarantine, or of the last retry",
    "quality_by_field.reason": "Code of why the image could not be used; null: it was used",
    "received_at": "When the manifest was read",
    "received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "region": "Where the defect sits: head, neck, tail; none: normal form",
    "region_loinc": "LOINC code of the region's total",
    "rejected_by_reason": "Objects left out by reason, border among them",
    "release_id": "Release of the networks",
    "release_ids": "Releases of the networks of its slides",
    "release_kind": "untrained and demonstration: the classes mean nothing",
    "replicate": "1 or 2",
    "replicate_1_cells": "Cells of the class in replicate 1",
    "replicate_1_total": "All classified cells of replicate 1",
    "replicate_2_cells": "Cells of the class in replicate 2",
    "replicate_2_total": "All classified cells of replicate 2",
    "replicates": "Replicates with a result",
    "resnetv2_50_logits": "Logits of ResNet50V2, in class index order",
    "seconds": "Seconds that the analysis took",
    "batch_overview.seconds": "From the start of the first slide to the end of the last",
    "slide_id": "slide_id of the manifest; unique within a batch",
    "slide_key": "Internal key of the slide",
    "slides": "Slides",
    "release.slides": "Slides analysed under it, open ones among them",
    "slides_done": "Slides with a result",
    "slides_insufficient": "Slides with fewer cells than asked: a result too",
    "slides_open": "Slides queued or running",
    "slides_quarantined": "Slides that wait for a person",
    "source": "Where the range comes from",
    "specimen": "Pseudonym of the specimen",
    "stain": "Stain of the slide",
    "stain_od": "Optical density of stained objects over background",
    "started_at": "Start of the last attempt",
    "state": "queued, running, done, insufficient or quarantined",
    "batch_overview.state": "received, analysing, complete, complete_with_errors or rejected",
    "timings": "Seconds by stage",
    "um_per_px": "Micrometres per pixel of its fields",
    "unevenness_pct": "Spread of the background over the field, % of its level",
    "unit": "Unit of the measure",
    "used": "Its cells were counted",
    "who_high": "Upper end of the WHO reference range; null: there is none",
    "who_low": "Lower end of the WHO reference range; null: there is none",
    "width_px": "Width of the image, pixels",
    "within_who_pct": "Measured cells inside the WHO range, %; null: there is no range",
    "x0": "Head box, pixels of the field: left",
    "x1": "Head box, pixels of the field: right, exclusive",
    "y0": "Head box, pixels of the field: top",
    "y1": "Head box, pixels of the field: bottom, exclusive",
}

# The tables morphology_class and measure are there before.
VIEWS = """create function reporting.wilson_low_pct(cells bigint, total bigint) returns double precision
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
"""


def upgrade() -> None:
    op.execute("create schema reporting")
    op.execute("comment on schema reporting is 'Morphology results for analysts: commented views, read-only'")
    _morphology_class()
    _measure()
    # The driver must not read the per cent signs of the comments as parameters.
    connection = op.get_bind()
    connection.exec_driver_sql(VIEWS, execution_options={"no_parameters": True})
    _comment_columns(connection)
    op.execute(MAKE_ANALYST)
    op.execute("grant usage on schema reporting to morphbatch_analyst")
    op.execute("grant select on all tables in schema reporting to morphbatch_analyst")
    # Views that a later revision adds need no grant of their own.
    op.execute("alter default privileges in schema reporting grant select on tables to morphbatch_analyst")


def downgrade() -> None:
    # The role stays: it belongs to the server, and other databases may grant it something.
    op.execute("alter default privileges in schema reporting revoke select on tables from morphbatch_analyst")
    op.execute("drop schema reporting cascade")


def _morphology_class() -> None:
    table = op.create_table(
        "morphology_class",
        sa.Column("class_index", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("loinc", sa.String()),
        sa.Column("region_loinc", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("class_index", name="pk_morphology_class"),
        sa.UniqueConstraint("name", name="uq_morphology_class_name"),
        schema="reporting",
        comment="The 18 classes, in the index order of every array of probabilities",
    )
    op.bulk_insert(
        table,
        [dict(zip(("class_index", "name", "region", "loinc", "region_loinc"), row, strict=True)) for row in CLASSES],
    )


def _measure() -> None:
    table = op.create_table(
        "measure",
        sa.Column("measure", sa.String(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("meaning", sa.String(), nullable=False),
        sa.Column("who_low", sa.Double()),
        sa.Column("who_high", sa.Double()),
        sa.Column("source", sa.String()),
        sa.PrimaryKeyConstraint("measure", name="pk_measure"),
        schema="reporting",
        comment="The measures of a head, their units, and the WHO reference range of those that have one",
    )
    op.bulk_insert(
        table,
        [
            dict(
                zip(
                    ("position", "measure", "unit", "meaning", "who_low", "who_high", "source"),
                    (position, *row),
                    strict=True,
                )
            )
            for position, row in enumerate(MEASURES)
        ],
    )


def _comment_columns(connection: sa.Connection) -> None:
    """A column of one name means one thing in every view, so its comment is written once."""
    columns = connection.execute(
        sa.text(
            "select table_name, column_name from information_schema.columns where table_schema = 'reporting'"
            " order by table_name, ordinal_position"
        )
    ).all()
    measures = {
        name: f"{meaning}, {unit}; null where it cannot be measured on this cell"
        for name, unit, meaning, *_ in MEASURES
    }
    for relation, column in columns:
        comment = COLUMN_COMMENTS.get(f"{relation}.{column}") or {**measures, **COLUMN_COMMENTS}[column]
        op.execute(
            sa.text(f'comment on column reporting."{relation}"."{column}" is :comment').bindparams(
                sa.bindparam("comment", comment, literal_execute=True)
            )
        )
