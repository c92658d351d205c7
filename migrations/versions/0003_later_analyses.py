"""A slide may be analysed again under another release: which analysis counts, and where fused logits come from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CURRENT_ANALYSIS = """
create or replace view reporting.current_analysis as
select a.id as analysis_id, a.slide_id as slide_key, a.release_id, r.kind as release_kind, a.state, a.attempts,
    a.queued_at, a.started_at, a.finished_at, a.reason, a.detail, a.cells_classified, a.cells_on_border,
    a.objects_rejected, a.timings
from analysis a
join model_release r on r.id = a.release_id
-- Not "distinct on": so that a question about one batch never reads the analyses of all others.
where not exists (select from analysis newer where newer.slide_id = a.slide_id and {newer})
"""


def upgrade() -> None:
    op.add_column(
        "analysis",
        sa.Column(
            "fused_from", sa.Integer(), comment="The analysis whose logits were fused anew; null: the networks ran"
        ),
    )
    op.create_foreign_key(op.f("fk_analysis_fused_from"), "analysis", "analysis", ["fused_from"], ["id"])
    op.alter_column(
        "analysis",
        "queued_at",
        existing_nullable=False,
        comment="When it was asked for; of a slide's analyses the latest counts",
    )
    # By the time it was asked for: a slide goes back to a release under which it has an analysis already.
    op.execute(CURRENT_ANALYSIS.format(newer="(newer.queued_at, newer.id) > (a.queued_at, a.id)"))


def downgrade() -> None:
    op.execute(CURRENT_ANALYSIS.format(newer="newer.id > a.id"))
    op.alter_column("analysis", "queued_at", existing_nullable=False, comment=None)
    op.drop_constraint(op.f("fk_analysis_fused_from"), "analysis")
    op.drop_column("analysis", "fused_from")
