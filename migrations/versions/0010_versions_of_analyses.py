"""An analysis is never overwritten: each is a version of its own, and the latest that has a result counts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OPEN = "state in ('queued', 'running')"

# A slide that was sent round again lost its earlier result only once the new one was written. Where it still waits for
# that, what is there becomes a version of its own again.
KEEP_WHAT_WAITS = """
with waiting as (
    select id, slide_id, release_id, version, queued_at from analysis a
    where state in ('queued', 'running') and exists (select from field_result f where f.analysis_id = a.id)
), kept as (
    update analysis a set lease_token = null, lease_until = null,
        state = case when a.cells_classified > 0 then 'done' else 'quarantined' end,
        reason = case when a.cells_classified = 0 then
            (select min(f.reason) from field_result f where f.analysis_id = a.id) end,
        detail = case when a.cells_classified = 0 then
            (select min(f.detail) from field_result f where f.analysis_id = a.id) end
    from waiting where waiting.id = a.id
)
insert into analysis (slide_id, release_id, state, version, queued_at)
select slide_id, release_id, 'queued', version + 1, queued_at from waiting
"""

NUMBER_THEM = """
update analysis set version = numbered.version from (
    select id, row_number() over (partition by slide_id order by queued_at, id) as version from analysis
) numbered where numbered.id = analysis.id
"""

CURRENT = """
create {replaced} view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings{version}
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists ({newer})
"""
LATEST_RESULT = """
    select from analysis other where other.slide_id = a.slide_id
        and (other.state in ('done', 'insufficient'), other.version) > (a.state in ('done', 'insufficient'), a.version)
"""
LATEST_ASKED_FOR = """
select from analysis newer where newer.slide_id = a.slide_id and (newer.queued_at, newer.id) > (a.queued_at, a.id)
"""

SLIDE_RESULT = """
create {replaced} view reporting.slide_result as
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
    (a.timings ->> 'total')::float8 as seconds, coalesce(a.timings, '{{}}') as timings{later}
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
left join reporting.current_analysis a on a.slide_key = s.id
{join}left join lateral (
    select coalesce(sum(c.cells), 0)::bigint as cells
    from slide_class_count c join reporting.morphology_class m using (class_index)
    where c.analysis_id = a.analysis_id and m.region = 'none'
) n on a.state in ('done', 'insufficient') and a.cells_classified > 0
"""
LATER = """, a.version,
    later.version as later_version, later.state as later_state, later.reason as later_reason,
    later.detail as later_detail"""
JOIN = """left join reporting.latest_analysis later on later.slide_key = s.id and later.version > a.version
"""

BATCH_OVERVIEW = """
create {replaced} view reporting.batch_overview as
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
    extract(epoch from max(s.finished_at) - min(s.started_at))::float8 as seconds{pending}
from batch b
join lab l on l.id = b.lab_id
left join reporting.slide_result s on s.batch_key = b.id
group by b.id, l.code
"""
PENDING = ",\n    count(s.later_state) as slides_pending"

LATEST = (
    """
create view reporting.latest_analysis as
select a.slide_id as slide_key, a.id as analysis_id, a.version, a.release_id, a.state, a.attempts, a.reason, a.detail,
    a.queued_at, a.started_at, a.finished_at, a.cells_classified, a.asked_by, a.why
from analysis a
where not exists (select from analysis newer where newer.slide_id = a.slide_id and newer.version > a.version)
""",
)

HISTORY = (
    """
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
    """
create view reporting.class_history as
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
    """
create view reporting.cell_history as
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
)

VIEW_COMMENTS = {
    "current_analysis": (
        "For each slide the one analysis that counts: the latest that has a result; without any result, the latest"
    ),
    "latest_analysis": (
        "For each slide the analysis asked for last, whatever came of it: what is under way, and what went wrong"
    ),
    "analysis_history": (
        "One row per analysis that was ever asked for, the latest version of a slide being one of them; none is changed"
    ),
    "class_history": (
        "One row per analysis with a result and class, 18 rows per analysis: cells, share and its Wilson interval"
    ),
    "cell_history": (
        "One row per classified cell of every analysis, also of those that count no more; give a received_on range"
    ),
}

# `view.column` goes before `column`
COLUMN_COMMENTS = {
    "batch_key": "Internal key of the batch; joins the views",
    "lab": "Code of the laboratory",
    "batch_id": "batch_id of the manifest; unique within a lab",
    "received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "slide_key": "Internal key of the slide",
    "slide_id": "slide_id of the manifest; unique within a batch",
    "specimen": "Pseudonym of the specimen",
    "replicate": "1 or 2",
    "stain": "Stain of the slide",
    "analysis_id": "One version of a slide's analysis; joins with reporting.cell and cell_history",
    "version": "Version of the slide's analysis, from 1",
    "counts": "Its cells are those of the slide in every other view",
    "state": "queued, running, done, insufficient or quarantined",
    "reason": "Code of why: of the quarantine, or of the last retry",
    "detail": "What was wrong and what to do, for people",
    "queued_at": "When it was queued",
    "asked_by": "Who asked for it; null: it came with the batch",
    "why": "Why it was asked for",
    "started_at": "Start of the last attempt",
    "finished_at": "End of the analysis",
    "release_id": "Release of the networks",
    "release_kind": "untrained and demonstration: the classes mean nothing",
    "fused_from": "The analysis whose logits were fused again; null: the networks ran",
    "software": "Version of morphbatch, and after + a digest of its source; null: it has not ended, or is older",
    "detector": "What found and measured the heads: a digest of its source; null: it has not ended, or is older",
    "form": "Form in which the networks were served, such as openvino-fp32",
    "settings": "Settings that change results, as they were",
    "made_with_sha256": "Digest of software, detector, form and settings together: equal means made the same way",
    "cells": "Classified cells",
    "on_border": "Heads cut by the border of a field: counted, not classified",
    "objects_rejected": "Debris and other objects left out",
    "normal_cells": "Cells of class Normal; null without a result",
    "normal_pct": "Normal forms, %; the WHO lower reference limit is 4 %",
    "normal_low_pct": "Lower bound of the 95 % Wilson interval of normal_pct",
    "normal_high_pct": "Upper bound of the 95 % Wilson interval of normal_pct",
    "class_index": "Index in every array of logits and probabilities, from 0",
    "class_history.class_name": "Name of the class",
    "region": "Where the defect sits: head, neck, tail; none: normal form",
    "class_history.cells": "Cells of the class",
    "class_history.cells_total": "All classified cells of the analysis: the denominator of pct",
    "pct": "Share of cells_total, %",
    "low_pct": "Lower bound of the 95 % Wilson interval of pct",
    "high_pct": "Upper bound of the 95 % Wilson interval of pct",
    "number": "Number of the cell in its analysis, from 1",
    "field_key": "Internal key of the field",
    "field_position": "Order of the field in the manifest, from 0",
    "field": "Object key of the image, relative to the batch",
    "x0": "Head box, pixels of the field: left",
    "y0": "Head box, pixels of the field: top",
    "x1": "Head box, pixels of the field: right, exclusive",
    "y1": "Head box, pixels of the field: bottom, exclusive",
    "class_name": "Class with the largest fused probability",
    "confidence": "Largest fused probability, 0 to 1",
    "probabilities": "Fused probabilities, in class index order",
    "efficientnetv2_s_logits": "Logits of EfficientNetV2-S, in class index order",
    "resnetv2_50_logits": "Logits of ResNet50V2, in class index order",
    "head_outline": "Outline of the head: little-endian uint16 x, y pairs, pixels of the field",
    "attempts": "Times the analysis was started",
    "cells_classified": "Classified cells",
    "later_version": "A later analysis than the one that counts, which has no result: its version; null: there is none",
    "later_state": "State of that one: queued, running or quarantined",
    "later_reason": "Code of why that one is quarantined, or was last retried",
    "later_detail": "The same for people",
    "slides_pending": "Slides whose result counts while a later analysis of them has none (yet)",
}
CURRENT_COMMENT = "For each slide the one analysis that counts: the latest. Every other view builds on it"
ANALYSIS_ID_COMMENT = "The slide under its release; joins with reporting.cell"


def upgrade() -> None:
    _new_columns()
    op.execute(NUMBER_THEM)
    op.drop_constraint(op.f("uq_analysis_slide_id_release_id"), "analysis")
    op.execute(KEEP_WHAT_WAITS)
    op.create_unique_constraint(op.f("uq_analysis_slide_id_version"), "analysis", ["slide_id", "version"])
    op.create_index("uq_analysis_slide_id_open", "analysis", ["slide_id"], unique=True, postgresql_where=OPEN)
    op.alter_column("analysis", "queued_at", existing_nullable=False, comment="When it was asked for")
    _execute(CURRENT.format(replaced="or replace", version=", a.version", newer=LATEST_RESULT))
    for view in LATEST:
        _execute(view)
    _execute(SLIDE_RESULT.format(replaced="or replace", later=LATER, join=JOIN))
    _execute(BATCH_OVERVIEW.format(replaced="or replace", pending=PENDING))
    for view in HISTORY:
        _execute(view)
    for view, comment in VIEW_COMMENTS.items():
        _comment(f"view reporting.{view}", comment)
    for view, column, standing in _columns():
        if standing is None:
            wanted = COLUMN_COMMENTS.get(f"{view}.{column}") or COLUMN_COMMENTS[column]
            _comment(f"column reporting.{view}.{column}", wanted)
        elif column == "analysis_id":
            _comment(f"column reporting.{view}.{column}", COLUMN_COMMENTS[column])
    # What an analysis found stays: nobody but the owner can change it or take it away.
    op.execute("revoke delete on cell, field_result, slide_class_count from morphbatch_service")


def downgrade() -> None:
    twice = "select from analysis group by slide_id, release_id having count(*) > 1"
    if op.get_bind().execute(sa.text(twice)).first() is not None:
        raise RuntimeError(
            "slides were analysed again under one release: the revision before holds one analysis of each, so that"
            " earlier results would be erased; restore a backup of that version instead"
        )
    op.execute("grant delete on cell, field_result, slide_class_count to morphbatch_service")
    for view in ("cell_history", "class_history", "analysis_history"):
        op.execute(f"drop view reporting.{view}")
    # A view loses a column no other way than with all that build on it.
    standing = _views()
    op.execute("drop view reporting.current_analysis, reporting.latest_analysis cascade")
    before = {
        "current_analysis": CURRENT.format(replaced="", version="", newer=LATEST_ASKED_FOR),
        "slide_result": SLIDE_RESULT.format(replaced="", later="", join=""),
        "batch_overview": BATCH_OVERVIEW.format(replaced="", pending=""),
    }
    there = set(_views())
    for view, (definition, comments) in standing.items():
        if view not in there and view != "latest_analysis":
            _execute(before.get(view) or f"create view reporting.{view} as {definition}")
            for subject, comment in comments.items():
                if subject.split(".")[-1] not in _LOST:
                    _comment(subject, comment)
    _comment("view reporting.current_analysis", CURRENT_COMMENT)
    for view, column, _ in _columns():
        if column == "analysis_id":
            _comment(f"column reporting.{view}.{column}", ANALYSIS_ID_COMMENT)
    op.drop_index("uq_analysis_slide_id_open", "analysis")
    op.drop_constraint(op.f("uq_analysis_slide_id_version"), "analysis")
    op.create_unique_constraint(op.f("uq_analysis_slide_id_release_id"), "analysis", ["slide_id", "release_id"])
    for column in ("version", "asked_by", "why", "made_with"):
        op.drop_column("analysis", column)
    op.alter_column(
        "analysis",
        "queued_at",
        existing_nullable=False,
        comment="When it was asked for; of a slide's analyses the latest counts",
    )


_LOST = ("version", "later_version", "later_state", "later_reason", "later_detail", "slides_pending")


def _new_columns() -> None:
    op.add_column(
        "analysis",
        sa.Column(
            "version",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="From 1 within the slide; the latest with a result counts",
        ),
    )
    op.add_column(
        "analysis", sa.Column("asked_by", sa.String(), comment="Who asked for it; null: it came with the batch")
    )
    op.add_column("analysis", sa.Column("why", sa.String(), comment="Why it was asked for"))
    op.add_column(
        "analysis",
        sa.Column(
            "made_with",
            postgresql.JSONB(astext_type=sa.Text()),
            comment="What it was made with: {software, detector, form, settings}; null: it has not ended, or is older",
        ),
    )


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    _execute(f"comment on {subject} is '{quoted}'")


def _columns() -> list[tuple[str, str, str | None]]:
    """View, column and its comment."""
    found = sa.text(
        "select relname, attname, col_description(attrelid, attnum) from pg_attribute"
        " join pg_class on pg_class.oid = attrelid where relnamespace = 'reporting'::regnamespace and relkind = 'v'"
        " and attnum > 0 order by relname, attnum"
    )
    return [(view, column, comment) for view, column, comment in op.get_bind().execute(found)]


def _views() -> dict[str, tuple[str, dict[str, str]]]:
    """Every view in the order in which they build on each other: its definition, and the comments of it."""
    connection = op.get_bind()
    views = connection.execute(
        sa.text(
            "select oid, relname, pg_get_viewdef(oid), obj_description(oid, 'pg_class') from pg_class"
            " where relnamespace = 'reporting'::regnamespace and relkind = 'v' order by oid"
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
