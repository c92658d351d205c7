"""Replicates: the WHO table at 200 cells each, an exact test above; no joined result where they disagree."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

FUNCTIONS = """
create function reporting.replicates_p(cells_1 bigint, total_1 bigint, cells_2 bigint, total_2 bigint)
returns double precision language sql immutable parallel safe return (
    select least(1, 2 * least(sum(weight) filter (where k <= cells_1), sum(weight) filter (where k >= cells_1))
        / sum(weight))
    from (
        select k, exp(log - max(log) over ()) as weight
        from (
            -- From one outcome to the next, the hypergeometric probability changes by this factor.
            select k, sum(case when k > greatest(0, cells_1 + cells_2 - total_2) then
                ln((total_1 - k + 1)::float8 * (cells_1 + cells_2 - k + 1)
                    / (k * (total_2 - cells_1 - cells_2 + k)::float8)) else 0 end) over (order by k) as log
            from generate_series(greatest(0, cells_1 + cells_2 - total_2), least(cells_1 + cells_2, total_1)) k
        ) step
    ) outcome
);
comment on function reporting.replicates_p(bigint, bigint, bigint, bigint) is
    'Fisher''s exact test of one share in two replicates, as twice the smaller tail: p, 0 to 1';

create function reporting.replicates_agree(cells_1 bigint, total_1 bigint, cells_2 bigint, total_2 bigint)
returns boolean language sql immutable parallel safe return
    case
        when coalesce(total_1, 0) < 200 or coalesce(total_2, 0) < 200 then null
        when total_1 = 200 and total_2 = 200 then abs(cells_1 - cells_2) <= 2 * (
            -- The WHO table: points by the mean, %, rounded half up and mirrored above 65.
            select case when m <= 0 then 1 when m <= 1 then 2 when m <= 2 then 3 when m <= 4 then 4 when m <= 7 then 5
                when m <= 11 then 6 when m <= 16 then 7 when m <= 23 then 8 when m <= 34 then 9 else 10 end
            from (select case when mean > 65 then 100 - mean else mean end as m
                from (select floor((cells_1 + cells_2) / 4.0 + 0.5) as mean) rounded) mirrored)
        else reporting.replicates_p(cells_1, total_1, cells_2, total_2) > 0.05
    end;
comment on function reporting.replicates_agree(bigint, bigint, bigint, bigint) is
    'Whether two replicates agree on a share: WHO table at 200 cells each, exact test at 0.05 above, null below';
"""

SPECIMENS = """
create or replace view reporting.specimen_distribution as
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
"""
COMMENT = "One row per specimen and class, the replicates of one batch, stain and release joined"
CELLS = "Cells of the class in all replicates"

SPECIMENS_BEFORE = """
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
    region
"""
# Comments go with the view.
COLUMN_COMMENTS = {
    "batch_key": "Internal key of the batch; joins the views",
    "lab": "Code of the laboratory",
    "batch_id": "batch_id of the manifest; unique within a lab",
    "received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "specimen": "Pseudonym of the specimen",
    "stain": "Stain of the slide",
    "release_id": "Release of the networks",
    "release_kind": "untrained and demonstration: the classes mean nothing",
    "slides": "Slides",
    "replicates": "Replicates with a result",
    "class_index": "Index in every array of logits and probabilities, from 0",
    "class_name": "Name of the class",
    "region": "Where the defect sits: head, neck, tail; none: normal form",
    "cells": "Cells of the class in all replicates",
    "cells_total": "All classified cells of all replicates: the denominator of pct",
    "pct": "Share of cells_total, %",
    "low_pct": "Lower bound of the 95 % Wilson interval of pct",
    "high_pct": "Upper bound of the 95 % Wilson interval of pct",
    "replicate_1_cells": "Cells of the class in replicate 1",
    "replicate_1_total": "All classified cells of replicate 1",
    "replicate_2_cells": "Cells of the class in replicate 2",
    "replicate_2_total": "All classified cells of replicate 2",
}


def upgrade() -> None:
    for function in FUNCTIONS.split(";\n\n"):
        op.get_bind().exec_driver_sql(function, execution_options={"no_parameters": True})
    op.execute("grant execute on all functions in schema reporting to morphbatch_analyst, morphbatch_service")
    op.execute(SPECIMENS)
    op.execute(f"comment on view reporting.specimen_distribution is '{COMMENT} unless they disagree'")
    op.execute(
        f"comment on column reporting.specimen_distribution.cells is '{CELLS}; null, as pct, where they disagree'"
    )
    op.execute(
        "comment on column reporting.specimen_distribution.replicates_agree is"
        " 'They agree on the normal forms; null: not assessable, fewer than 200 cells in one'"
    )


def downgrade() -> None:
    op.execute("drop view reporting.specimen_distribution")
    op.execute(SPECIMENS_BEFORE)
    # In the order in which earlier revisions granted it.
    op.execute("revoke select on reporting.specimen_distribution from morphbatch_analyst, morphbatch_service")
    for role in ("morphbatch_analyst", "morphbatch_service"):
        op.execute(f"grant select on reporting.specimen_distribution to {role}")
    op.execute(f"comment on view reporting.specimen_distribution is '{COMMENT}'")
    for column, comment in COLUMN_COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"comment on column reporting.specimen_distribution.{column} is '{quoted}'")
    op.execute("drop function reporting.replicates_agree(bigint, bigint, bigint, bigint)")
    op.execute("drop function reporting.replicates_p(bigint, bigint, bigint, bigint)")
