"""Comments that analysts read, in plainer English."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# of what, before, after
COMMENTS = (
    (
        "view reporting.slide_result",
        "One row a slide: its state, what was counted, and its normal forms with their interval. Not a diagnosis",
        "One row per slide: its state, what was counted, and its normal forms with their interval. Not a diagnosis",
    ),
    (
        "view reporting.batch_overview",
        "One row a batch: is last night complete, and how much was counted",
        "One row per batch: is last night complete, and how much was counted",
    ),
    (
        "view reporting.throughput_by_night",
        "One row a night (noon to noon UTC, named by its evening), lab and release: work done and its speed",
        "One row per night (noon to noon UTC, named by its evening), lab and release: work done and its speed",
    ),
    (
        "view reporting.class_distribution",
        "One row a slide and class, 18 rows a slide: cells, share and its Wilson interval",
        "One row per slide and class, 18 rows per slide: cells, share and its Wilson interval",
    ),
    (
        "view reporting.region_share",
        "One row a slide and region of the defect (head, neck, tail; none: normal forms)."
        " One class a cell, so they add up",
        "One row per slide and region of the defect (head, neck, tail; none: normal forms)."
        " One class per cell, so they add up",
    ),
    (
        "view reporting.specimen_distribution",
        "One row a specimen and class, the replicates of one batch, stain and release joined",
        "One row per specimen and class, the replicates of one batch, stain and release joined",
    ),
    (
        "view reporting.cell",
        "One row a classified cell of the analyses that count; give a received_on range to read few partitions",
        "One row per classified cell of the analyses that count; give a received_on range to read few partitions",
    ),
    (
        "view reporting.confidence_by_slide",
        "One row a slide: how sure the networks are of its cells; a fall over weeks is the first sign of drift",
        "One row per slide: how sure the networks are of its cells; a fall over weeks is the first sign of drift",
    ),
    (
        "view reporting.morphometry_by_slide",
        "One row a slide and measure: median, 5th and 95th percentile of the cells measured, beside the WHO range",
        "One row per slide and measure: median, 5th and 95th percentile of the cells measured, beside the WHO range",
    ),
    (
        "view reporting.quality_by_field",
        "One row a field: focus, light, stain, what was left out and why",
        "One row per field: focus, light, stain, what was left out and why",
    ),
    (
        "view reporting.release",
        "One row a release of the networks; `untrained` and `demonstration` say nothing",
        "One row per release of the networks; classes by `untrained` and `demonstration` ones mean nothing",
    ),
    (
        "function reporting.wilson_low_pct(bigint, bigint)",
        "Lower bound, %, of the Wilson score interval at 95 % of the share cells / total; null of nothing",
        "Lower bound, %, of the 95 % Wilson score interval of the share cells / total; null where total is 0",
    ),
    (
        "function reporting.wilson_high_pct(bigint, bigint)",
        "Upper bound, %, of the Wilson score interval at 95 % of the share cells / total; null of nothing",
        "Upper bound, %, of the 95 % Wilson score interval of the share cells / total; null where total is 0",
    ),
    (
        "column reporting.release.fusion_alpha",
        "Weight of EfficientNetV2-S in the fused logits, 0 to 1; null: one a class",
        "Weight of EfficientNetV2-S in the fused logits, 0 to 1; null: one per class",
    ),
    (
        "column reporting.slide_result.fewer_than_200_cells",
        "Fewer cells than the WHO manual asks of a replicate; null without a result",
        "Fewer cells than the WHO manual asks for in a replicate; null without a result",
    ),
    (
        "column analysis.fused_from",
        "The analysis whose logits were fused anew; null: the networks ran",
        "The analysis whose logits were fused again; null: the networks ran",
    ),
    (
        "column field_result.rejected",
        "Objects that are no whole head: [{box, reason}]",
        "Objects that are not a whole head: [{box, reason}]",
    ),
)


def upgrade() -> None:
    for subject, _, after in COMMENTS:
        op.execute(f"comment on {subject} is '{after}'")


def downgrade() -> None:
    for subject, before, _ in COMMENTS:
        op.execute(f"comment on {subject} is '{before}'")
