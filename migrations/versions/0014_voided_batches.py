"""A batch may be voided, and nothing of it counts; an image in two slides is found, and counts once in a specimen."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

CURRENT = """
create or replace view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings, a.version
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists (
    select from analysis other where other.slide_id = a.slide_id
        and (other.state in ('done', 'insufficient'), other.version) > (a.state in ('done', 'insufficient'), a.version)
) and not exists (
    select from slide s join batch b on b.id = s.batch_id where s.id = a.slide_id and b.voided_at is not null
)
"""
CURRENT_BEFORE = """
create or replace view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings, a.version
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists (
    select from analysis other where other.slide_id = a.slide_id
        and (other.state in ('done', 'insufficient'), other.version) > (a.state in ('done', 'insufficient'), a.version)
)
"""

SLIDE_RESULT = """
create or replace view reporting.slide_result as
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
"""
NOT_VOIDED = "where b.voided_at is null"

BATCH_OVERVIEW = """
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
    count(s.later_state) as slides_pending
from batch b
join lab l on l.id = b.lab_id
left join reporting.slide_result s on s.batch_key = b.id
group by b.id, l.code
"""
PENDING = "count(s.later_state) as slides_pending"
VOIDED = f"{PENDING}, b.voided_at, b.voided_by, b.void_why"

COUNTED_BEFORE = """
create view reporting.counted_before as
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
"""

SHARED_FIELD = """
create view reporting.shared_field as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, f.id as field_key, f.key as field, o.batch_key as first_batch_key, o.batch_id as first_batch_id,
    o.slide_id as first_slide_id, o.specimen as first_specimen, o.replicate as first_replicate
from batch b
join lab l on l.id = b.lab_id
join slide s on s.batch_id = b.id
join field f on f.slide_id = s.id
cross join lateral (
    select eb.id as batch_key, eb.batch_code as batch_id, e.slide_code as slide_id, e.specimen, e.replicate
    from field earlier
    join slide e on e.id = earlier.slide_id
    join batch eb on eb.id = e.batch_id
    where earlier.sha256 = f.sha256 and earlier.id < f.id and e.id <> s.id and eb.lab_id = b.lab_id
        and eb.voided_at is null
    order by earlier.id limit 1
) o
where b.voided_at is null
"""

VIEW_COMMENTS = {
    "counted_before": (
        "One row per slide and class: cells of images that an earlier slide of the specimen has too, which"
        " count once in it"
    ),
    "shared_field": "One row per field whose bytes the lab had sent before, in another slide: it may be counted twice",
}
BATCH_OVERVIEW_COMMENT = "One row per batch: is last night complete, and how much was counted"

# view.column
COLUMN_COMMENTS = {
    "batch_overview.voided_at": "Since then nothing of the batch counts; null: it counts",
    "batch_overview.voided_by": "Who voided it",
    "batch_overview.void_why": "Why it was voided",
    "counted_before.batch_key": "Internal key of the batch; joins the views",
    "counted_before.received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "counted_before.slide_id": "slide_id of the manifest; unique within a batch",
    "counted_before.analysis_id": "One version of a slide's analysis; joins with reporting.cell and cell_history",
    "counted_before.class_index": "Index in every array of logits and probabilities, from 0",
    "counted_before.cells": "Cells of the class in images that the specimen has in an earlier slide too",
    "shared_field.batch_key": "Internal key of the batch; joins the views",
    "shared_field.lab": "Code of the laboratory",
    "shared_field.batch_id": "batch_id of the manifest; unique within a lab",
    "shared_field.received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "shared_field.slide_id": "slide_id of the manifest; unique within a batch",
    "shared_field.specimen": "Pseudonym of the specimen",
    "shared_field.replicate": "1 or 2",
    "shared_field.field_key": "Internal key of the field",
    "shared_field.field": "Object key of the image, relative to the batch",
    "shared_field.first_batch_key": "Key of the batch that had the image first",
    "shared_field.first_batch_id": "batch_id of the batch that had the image first",
    "shared_field.first_slide_id": "slide_id of the slide that had the image first",
    "shared_field.first_specimen": "Specimen of the slide that had the image first",
    "shared_field.first_replicate": "Replicate of the slide that had the image first",
}
BATCH_OVERVIEW_COLUMNS = {
    "batch_overview.batch_key": "Internal key of the batch; joins the views",
    "batch_overview.lab": "Code of the laboratory",
    "batch_overview.batch_id": "batch_id of the manifest; unique within a lab",
    "batch_overview.state": "analysing, complete, complete_with_errors or rejected",
    "batch_overview.received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "batch_overview.received_at": "When the manifest was read",
    "batch_overview.closed_at": "When the batch was complete",
    "batch_overview.slides": "Slides",
    "batch_overview.slides_done": "Slides with a result",
    "batch_overview.slides_insufficient": "Slides with fewer cells than asked: a result too",
    "batch_overview.slides_quarantined": "Slides that wait for a person",
    "batch_overview.slides_open": "Slides queued or running",
    "batch_overview.fields": "Images in the manifest",
    "batch_overview.fields_used": "Images whose cells were counted",
    "batch_overview.cells": "Classified cells",
    "batch_overview.on_border": "Heads cut by the border of a field: counted, not classified",
    "batch_overview.objects_rejected": "Debris and other objects left out",
    "batch_overview.release_ids": "Releases of the networks of its slides",
    "batch_overview.not_for_use": (
        "A slide was classified by untrained or demonstration networks: its classes mean nothing"
    ),
    "batch_overview.seconds": "From the start of the first slide to the end of the last",
    "batch_overview.slides_pending": "Slides whose result counts while a later analysis of them has none (yet)",
}


def upgrade() -> None:
    since = "Since then nothing of it counts; null: it counts"
    op.add_column("batch", sa.Column("voided_at", sa.DateTime(timezone=True), comment=since))
    op.add_column("batch", sa.Column("voided_by", sa.String()))
    op.add_column("batch", sa.Column("void_why", sa.String(), comment="Why it was voided"))
    op.create_index("ix_field_sha256", "field", ["sha256"])
    _execute(CURRENT)
    _execute(f"{SLIDE_RESULT}{NOT_VOIDED}")
    _execute(BATCH_OVERVIEW.replace("create view", "create or replace view").replace(PENDING, VOIDED))
    _execute(COUNTED_BEFORE)
    _execute(SPECIMEN_DISTRIBUTION)
    _execute(SHARED_FIELD)
    for view, comment in VIEW_COMMENTS.items():
        _comment(f"view reporting.{view}", comment)
    for column, comment in COLUMN_COMMENTS.items():
        _comment(f"column reporting.{column}", comment)


def downgrade() -> None:
    if op.get_bind().execute(sa.text("select from batch where voided_at is not null")).first() is not None:
        raise RuntimeError(
            "some batches are voided, and would count again: restore them first (`morphbatch void BATCH --undo`)"
        )
    _execute(SPECIMEN_DISTRIBUTION_BEFORE)
    _execute("drop view reporting.shared_field, reporting.counted_before")
    _execute("drop view reporting.batch_overview")  # a view loses a column no other way, and its comments with it
    _execute(BATCH_OVERVIEW)
    _comment("view reporting.batch_overview", BATCH_OVERVIEW_COMMENT)
    for column, comment in BATCH_OVERVIEW_COLUMNS.items():
        _comment(f"column reporting.{column}", comment)
    _execute(SLIDE_RESULT)
    _execute(CURRENT_BEFORE)
    op.drop_index("ix_field_sha256", "field")
    for column in ("voided_at", "voided_by", "void_why"):
        op.drop_column("batch", column)


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    _execute(f"comment on {subject} is '{quoted}'")
