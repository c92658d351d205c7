"""A cell may be classified and not counted, as where the border of its field cuts its crop; both are on record."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

SUM_OF = """
create function reporting.sum_of(cells jsonb) returns bigint
language sql immutable parallel safe return (
    select coalesce(sum(n::bigint), 0)::bigint from jsonb_each_text(cells) e (reason, n)
)
"""
SUM_OF_COMMENT = "Sum of the numbers of an object of cells by reason; 0 of null"

# In the order in which they build on each other.
VIEWS = {
    "current_analysis": """
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
)
""",
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
where b.voided_at is null
""",
    "batch_overview": """
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
group by b.id, l.code
""",
    "throughput_by_night": """
select reporting.night_of(s.finished_at, l.time_zone) as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells + s.cells_not_counted)::bigint as cells,
    sum(s.seconds) as busy_seconds, min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells + s.cells_not_counted)::bigint
        / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
join lab l on l.code = s.lab
where s.finished_at is not null and s.state not in ('queued', 'running')
group by 1, s.lab, s.release_id
""",
    "class_distribution": """
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.specimen, s.replicate, s.stain, s.analysis_id,
    s.release_id, s.release_kind, m.class_index, m.class_name, m.region, coalesce(c.cells, 0) as cells,
    s.cells as cells_total, 100.0::float8 * coalesce(c.cells, 0) / s.cells as pct,
    reporting.wilson_low_pct(coalesce(c.cells, 0), s.cells) as low_pct,
    reporting.wilson_high_pct(coalesce(c.cells, 0), s.cells) as high_pct, m.class_code, m.class_name_tr,
    s.cells_not_counted
from reporting.slide_result s
cross join reporting.morphology_class m
left join slide_class_count c on c.analysis_id = s.analysis_id and c.class_index = m.class_index
where s.state in ('done', 'insufficient') and s.cells > 0
""",
    "counted_before": """
select r.batch_key, r.received_on, r.slide_id, r.analysis_id, c.class_index, c.cells
from reporting.repeated_fields r
-- For each slide, so that no cells of others are read.
cross join lateral (
    select class_index, count(*) as cells from cell
    where received_on = r.received_on and analysis_id = r.analysis_id and field_id = any(r.field_keys)
        and not_counted is null
    group by class_index
) c
""",
    "specimen_distribution": """
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
) judged
""",
    "cell": """
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
join reporting.morphology_class m on m.class_index = c.class_index
""",
    "confidence_by_slide": """
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
) c
""",
    "morphometry_by_slide": """
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
) w
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
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
""",
    "cell_history": """
select h.batch_key, h.lab, h.batch_id, c.received_on, h.slide_id, h.analysis_id, h.version, h.counts, h.release_id,
    h.release_kind, c.number, c.field_id as field_key, f.position as field_position, f.key as field, c.x0, c.y0, c.x1,
    c.y1, c.class_index, m.class_name, m.region, c.confidence, c.probabilities, c.efficientnetv2_s_logits,
    c.resnetv2_50_logits, c.head_outline, m.class_code, m.class_name_tr, c.crop_inside_share, c.not_counted
from reporting.analysis_history h
-- With the day, only that month's partition is read.
join cell c on c.received_on = h.received_on and c.analysis_id = h.analysis_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
""",
    "release": """
select r.id as release_id, r.kind, r.active, r.created_at,
    case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'number' then
        (r.document -> 'fusion' ->> 'alpha')::float8
    end as fusion_alpha,
    (r.document ->> 'crop_um')::float8 as crop_um, (r.document ->> 'crop_px')::integer as crop_px,
    r.document ->> 'git_commit' as git_commit, r.document ->> 'data_fingerprint' as data_fingerprint,
    r.document -> 'metrics' as metrics, (select count(*) from analysis a where a.release_id = r.id) as slides,
    case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'array' then array(
        select share::float8 from jsonb_array_elements_text(r.document -> 'fusion' -> 'alpha')
            with ordinality given(share, place) order by place
    ) end as fusion_alpha_by_class,
    (r.document ->> 'minimum_crop_inside_share')::float8 as minimum_crop_inside_share
from model_release r
""",
}
# What each has that it had not before.
ADDED = {
    "current_analysis": ((", a.version, a.not_counted_by_reason", ", a.version"),),
    "slide_result": (
        (
            ", reporting.sum_of(a.not_counted_by_reason) as cells_not_counted,\n"
            "    coalesce(a.not_counted_by_reason, '{}') as not_counted_by_reason",
            "",
        ),
    ),
    "batch_overview": ((",\n    coalesce(sum(s.cells_not_counted), 0)::bigint as cells_not_counted", ""),),
    "throughput_by_night": (("s.cells + s.cells_not_counted", "s.cells"),),
    "class_distribution": ((",\n    s.cells_not_counted", ""),),
    "counted_before": (("\n        and not_counted is null", ""),),
    "specimen_distribution": (
        ("class_name_tr, cells_not_counted\n", "class_name_tr\n"),
        (", sum(d.cells_not_counted)::bigint as cells_not_counted", ""),
    ),
    "cell": ((", c.crop_inside_share, c.not_counted", ""),),
    "confidence_by_slide": ((" and not_counted is null", ""),),
    "morphometry_by_slide": (
        (
            "\n        -- The head of any other cell that is not counted is whole, and its measures hold.\n"
            "        and c.not_counted is distinct from 'not_a_sperm'",
            "",
        ),
    ),
    "analysis_history": (
        (",\n    reporting.sum_of(a.not_counted_by_reason) as cells_not_counted, a.not_counted_by_reason", ""),
    ),
    "cell_history": ((", c.crop_inside_share, c.not_counted", ""),),
    "release": ((",\n    (r.document ->> 'minimum_crop_inside_share')::float8 as minimum_crop_inside_share", ""),),
}

COLUMN_COMMENTS = {
    "cells": "Classified cells that count",
    "cells_classified": "Classified cells that count",
    "cells_not_counted": "Cells that were classified and do not count, as those cut by the border of their field",
    "specimen_distribution.cells_not_counted": "Cells of its slides that were classified and do not count",
    "cells_total": "All classified cells that count: the denominator of pct",
    "specimen_distribution.cells_total": "All classified cells of all replicates that count: the denominator of pct",
    "morphometry_by_slide.cells_total": "All classified cells of the slide, also those cut by the border",
    "class_history.cells_total": "All classified cells of the analysis that count: the denominator of pct",
    "crop_inside_share": "How much of its crop lies in the field, 0 to 1; null: an image of one cell, or older",
    "minimum_crop_inside_share": "A cell counts if so much of its crop lies in the field; null: each does",
    "not_counted": "Code of why it is not counted: cut_by_border, isolated_head, not_a_sperm; null: it counts",
    "not_counted_by_reason": "Those of cells_not_counted by reason",
    "replicate_1_total": "All classified cells of replicate 1 that count",
    "replicate_2_total": "All classified cells of replicate 2 that count",
    "throughput_by_night.cells": "Classified cells, whether they count or not",
}
COLUMN_COMMENTS_BEFORE = {
    "cells": "Classified cells",
    "cells_classified": "Classified cells",
    "cells_total": "All classified cells: the denominator of pct",
    "specimen_distribution.cells_total": "All classified cells of all replicates: the denominator of pct",
    "morphometry_by_slide.cells_total": "All classified cells of the slide",
    "class_history.cells_total": "All classified cells of the analysis: the denominator of pct",
    "replicate_1_total": "All classified cells of replicate 1",
    "replicate_2_total": "All classified cells of replicate 2",
}
# Their columns of these names mean something else, and keep what is said of them.
KEPT = (
    *("class_distribution.cells", "class_history.cells", "specimen_distribution.cells", "region_share.cells"),
    *("counted_before.cells", "quality_by_field.cells"),
)


def upgrade() -> None:
    op.alter_column("analysis", "cells_classified", existing_nullable=False, comment="Classified cells that count")
    op.add_column(
        "analysis",
        sa.Column(
            "not_counted_by_reason",
            postgresql.JSONB(),
            server_default="{}",
            nullable=False,
            comment="Cells that were classified and do not count, by reason: {reason: cells}",
        ),
    )
    # Of the cells on record nobody measured it, and each of them counts.
    share = "How much of its crop lies in the field, 0 to 1; null: an image of one cell, or older"
    op.add_column("cell", sa.Column("crop_inside_share", sa.REAL(), comment=share))
    op.add_column(
        "cell", sa.Column("not_counted", sa.String(), comment="Code of why it is not counted; null: it counts")
    )
    _execute(SUM_OF)
    _comment("function reporting.sum_of(jsonb)", SUM_OF_COMMENT)
    _execute("revoke execute on function reporting.sum_of(jsonb) from public")
    _execute("grant execute on function reporting.sum_of(jsonb) to morphbatch_analyst, morphbatch_service")
    for view, select in VIEWS.items():
        _execute(f"create or replace view reporting.{view} as {select}")
    _comment_columns(COLUMN_COMMENTS)


def downgrade() -> None:
    if op.get_bind().execute(sa.text("select from analysis where not_counted_by_reason <> '{}'")).first() is not None:
        raise RuntimeError(
            "some cells were classified and not counted: the revision before would show them among those that count;"
            " restore a backup of that version instead"
        )
    # A view loses a column no other way than with all that build on it.
    standing, needed = _views(), _needed()
    op.execute("drop view reporting.current_analysis, reporting.release cascade")
    for view in _in_order(standing.keys() - _views().keys(), needed):
        definition, comments = standing[view]
        select = VIEWS.get(view, definition)
        for now, before in ADDED.get(view, ()):
            select = select.replace(now, before)
        _execute(f"create view reporting.{view} as {select}")
        for subject, comment in comments.items():
            if subject.split(".")[-1] not in _LOST:
                _comment(subject, comment)
    _comment_columns(COLUMN_COMMENTS_BEFORE)
    _execute("drop function reporting.sum_of(jsonb)")
    op.drop_column("cell", "not_counted")
    op.drop_column("cell", "crop_inside_share")
    op.drop_column("analysis", "not_counted_by_reason")
    op.alter_column("analysis", "cells_classified", existing_nullable=False, comment=None)


_LOST = ("cells_not_counted", "not_counted_by_reason", "crop_inside_share", "not_counted", "minimum_crop_inside_share")


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    _execute(f"comment on {subject} is '{quoted}'")


def _comment_columns(comments: dict[str, str]) -> None:
    columns = op.get_bind().execute(
        sa.text("select table_name, column_name from information_schema.columns where table_schema = 'reporting'")
    )
    for view, column in columns.all():
        comment = comments.get(f"{view}.{column}") or comments.get(column)
        if comment is not None and f"{view}.{column}" not in KEPT:
            _comment(f"column reporting.{view}.{column}", comment)


def _needed() -> dict[str, set[str]]:
    """The views that each view is made of."""
    pairs = op.get_bind().execute(
        sa.text(
            "select distinct v.relname, n.relname from pg_rewrite r join pg_class v on v.oid = r.ev_class"
            " join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid"
            " join pg_class n on d.refclassid = 'pg_class'::regclass and n.oid = d.refobjid and n.oid <> v.oid"
            " where v.relnamespace = 'reporting'::regnamespace and n.relnamespace = 'reporting'::regnamespace"
            " and n.relkind = 'v'"
        )
    )
    needed: dict[str, set[str]] = {}
    for view, other in pairs:
        needed.setdefault(view, set()).add(other)
    return needed


def _in_order(views: set[str], needed: dict[str, set[str]]) -> list[str]:
    """`views`, each after those that it is made of."""
    order: list[str] = []
    while waiting := views - set(order):
        order += sorted(view for view in waiting if not needed.get(view, set()) & waiting)
    return order


def _views() -> dict[str, tuple[str, dict[str, str]]]:
    """Every view: its definition, and the comments of it."""
    connection = op.get_bind()
    views = connection.execute(
        sa.text(
            "select oid, relname, pg_get_viewdef(oid), obj_description(oid, 'pg_class') from pg_class"
            " where relnamespace = 'reporting'::regnamespace and relkind = 'v'"
        )
    ).all()
    of_columns = sa.text(
        "select attname, col_description(attrelid, attnum) from pg_attribute where attrelid = :view and attnum > 0"
    )
    return {
        name: (
            definition,
            {f"view reporting.{name}": comment}
            | {
                f"column reporting.{name}.{column}": said
                for column, said in connection.execute(of_columns, {"view": oid})
            },
        )
        for oid, name, definition, comment in views
    }
