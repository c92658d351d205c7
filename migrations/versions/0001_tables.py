"""The tables, and the function that makes the monthly partitions of `cell` ahead of time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Run with its owner's rights, so that a worker's role needs none to create tables.
MAKE_PARTITIONS = """
create function make_cell_partitions(from_month date, months integer) returns void
language plpgsql security definer set search_path = public as $$
declare
    first_day date;
begin
    for i in 0 .. months - 1 loop
        first_day := date_trunc('month', from_month)::date + make_interval(months => i);
        if to_regclass(to_char(first_day, '"cell_"YYYY_MM')) is null then
            -- Two at once: the second waits here, then finds the table there.
            perform pg_advisory_xact_lock(hashtext('make_cell_partitions'));
            execute format(
                'create table if not exists %I partition of cell for values from (%L) to (%L)',
                to_char(first_day, '"cell_"YYYY_MM'), first_day, (first_day + interval '1 month')::date);
        end if;
    end loop;
end
$$;
"""


def upgrade() -> None:
    op.create_table(
        "lab",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lab")),
        sa.UniqueConstraint("code", name=op.f("uq_lab_code")),
    )
    op.create_table(
        "model_release",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column(
            "active",
            sa.Boolean(),
            server_default="false",
            nullable=False,
            comment="New slides are analysed under the active one",
        ),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="release.json"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "kind in ('untrained', 'demonstration', 'trained')", name=op.f("ck_model_release_kind_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_release")),
    )
    op.create_index("uq_model_release_active", "model_release", ["active"], unique=True, postgresql_where="active")
    op.create_table(
        "batch",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("lab_id", sa.Integer(), nullable=False),
        sa.Column("batch_code", sa.String(), nullable=False, comment="batch_id of the manifest"),
        sa.Column("state", sa.String(), server_default="received", nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column(
            "manifest_etag",
            sa.String(),
            nullable=False,
            comment="ETag of the manifest object; the sweep skips what it has seen",
        ),
        sa.Column(
            "problems",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Why it was rejected: [{path, reason, message}]",
        ),
        sa.Column(
            "received_on", sa.Date(), nullable=False, comment="Day of receipt, UTC; its month is the cells' partition"
        ),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "close_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When no slide is open, the sweep publishes its closing (again) once this has passed",
        ),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('received', 'analysing', 'complete', 'complete_with_errors', 'rejected')",
            name=op.f("ck_batch_state_known"),
        ),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_batch_lab_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("lab_id", "batch_code", name=op.f("uq_batch_lab_id_batch_code")),
    )
    op.create_index(
        "ix_batch_open", "batch", ["id"], unique=False, postgresql_where="state in ('received', 'analysing')"
    )
    op.create_table(
        "slide",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="Order in the manifest, from 0"),
        sa.Column("slide_code", sa.String(), nullable=False, comment="slide_id of the manifest"),
        sa.Column("specimen", sa.String(), nullable=False, comment="Pseudonym of the specimen; never a person's data"),
        sa.Column("replicate", sa.SmallInteger(), nullable=False),
        sa.Column("stain", sa.String(), nullable=False),
        sa.Column("um_per_px", sa.Double(), nullable=False, comment="Micrometres per pixel of its fields"),
        sa.CheckConstraint("replicate in (1, 2)", name=op.f("ck_slide_replicate_1_or_2")),
        sa.CheckConstraint("um_per_px > 0", name=op.f("ck_slide_um_per_px_positive")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_slide_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slide")),
        sa.UniqueConstraint("batch_id", "slide_code", name=op.f("uq_slide_batch_id_slide_code")),
    )
    op.create_index(op.f("ix_slide_specimen"), "slide", ["specimen"], unique=False)
    op.create_table(
        "analysis",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("slide_id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "lease_token",
            sa.String(),
            nullable=True,
            comment="The attempt that holds the slide; a lost lease writes nothing",
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "publish_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="While queued, the sweep publishes it (again) once this has passed",
        ),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(), nullable=True, comment="Code of why it is quarantined or was last retried"),
        sa.Column("detail", sa.String(), nullable=True, comment="The same for people"),
        sa.Column("cells_classified", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "cells_on_border",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Heads cut by the border: not classified",
        ),
        sa.Column(
            "objects_rejected",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Debris and other objects left out",
        ),
        sa.Column(
            "timings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Seconds by stage",
        ),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'done', 'quarantined', 'insufficient')",
            name=op.f("ck_analysis_state_known"),
        ),
        sa.ForeignKeyConstraint(["release_id"], ["model_release.id"], name=op.f("fk_analysis_release_id")),
        sa.ForeignKeyConstraint(["slide_id"], ["slide.id"], name=op.f("fk_analysis_slide_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_analysis")),
        sa.UniqueConstraint("slide_id", "release_id", name=op.f("uq_analysis_slide_id_release_id")),
    )
    op.create_index(
        "ix_analysis_open",
        "analysis",
        ["state", "lease_until"],
        unique=False,
        postgresql_where="state in ('queued', 'running')",
    )
    op.create_table(
        "audit_event",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=True),
        sa.Column("slide_id", sa.Integer(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_audit_event_batch_id")),
        sa.ForeignKeyConstraint(["slide_id"], ["slide.id"], name=op.f("fk_audit_event_slide_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_event")),
    )
    op.create_index(op.f("ix_audit_event_batch_id"), "audit_event", ["batch_id"], unique=False)
    op.create_table(
        "field",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("slide_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="Order in the manifest, from 0"),
        sa.Column("key", sa.String(), nullable=False, comment="Object key, relative to the batch's prefix"),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), server_default="field", nullable=False),
        sa.Column(
            "given_cells",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Cells the manifest gave, used as given: [{box: [x0, y0, x1, y1]}]",
        ),
        sa.CheckConstraint("kind in ('field', 'crop')", name=op.f("ck_field_kind_known")),
        sa.ForeignKeyConstraint(["slide_id"], ["slide.id"], name=op.f("fk_field_slide_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_field")),
        sa.UniqueConstraint("slide_id", "position", name=op.f("uq_field_slide_id_position")),
    )
    op.create_table(
        "cell",
        sa.Column("received_on", sa.Date(), nullable=False, comment="The batch's; so a redelivery lands here again"),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="From 1, in order of field, then y, then x"),
        sa.Column("field_id", sa.Integer(), nullable=False),
        sa.Column(
            "x0", sa.Integer(), nullable=False, comment="Head box, pixels of the field, left; x1 and y1 are exclusive"
        ),
        sa.Column("y0", sa.Integer(), nullable=False),
        sa.Column("x1", sa.Integer(), nullable=False),
        sa.Column("y1", sa.Integer(), nullable=False),
        sa.Column("class_index", sa.SmallInteger(), nullable=False, comment="Class of the largest fused probability"),
        sa.Column("confidence", sa.REAL(), nullable=False, comment="Largest fused probability"),
        sa.Column("probabilities", sa.ARRAY(sa.REAL()), nullable=False),
        sa.Column("efficientnetv2_s_logits", sa.ARRAY(sa.REAL()), nullable=False),
        sa.Column("resnetv2_50_logits", sa.ARRAY(sa.REAL()), nullable=False),
        sa.Column(
            "head_outline",
            sa.LargeBinary(),
            nullable=True,
            comment="Outline polygon: little-endian uint16 x, y pairs, pixels of the field",
        ),
        sa.Column("head_length_um", sa.REAL(), nullable=True, comment="Long side of the minimum-area rectangle, µm"),
        sa.Column("head_width_um", sa.REAL(), nullable=True, comment="Short side of the minimum-area rectangle, µm"),
        sa.Column("head_area_um2", sa.REAL(), nullable=True, comment="Area of the head, µm²"),
        sa.Column("head_perimeter_um", sa.REAL(), nullable=True, comment="Perimeter of the head, µm"),
        sa.Column("ellipticity", sa.REAL(), nullable=True, comment="Length ÷ width"),
        sa.Column("elongation", sa.REAL(), nullable=True, comment="(length - width) ÷ (length + width)"),
        sa.Column("roughness", sa.REAL(), nullable=True, comment="4π·area ÷ perimeter²"),
        sa.Column("regularity", sa.REAL(), nullable=True, comment="π·length·width ÷ (4·area)"),
        sa.Column("acrosome_share", sa.REAL(), nullable=True, comment="Acrosome area ÷ head area, 0 to 1"),
        sa.Column("vacuole_share", sa.REAL(), nullable=True, comment="Vacuole area ÷ head area, 0 to 1"),
        sa.Column("midpiece_width_um", sa.REAL(), nullable=True, comment="Width of the midpiece at its insertion, µm"),
        sa.Column(
            "midpiece_angle_deg",
            sa.REAL(),
            nullable=True,
            comment="Angle between midpiece and long axis of the head, degrees, 0 to 90",
        ),
        sa.CheckConstraint("array_length(probabilities, 1) = 18", name=op.f("ck_cell_probabilities_18")),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"], name=op.f("fk_cell_analysis_id")),
        sa.ForeignKeyConstraint(["field_id"], ["field.id"], name=op.f("fk_cell_field_id")),
        sa.PrimaryKeyConstraint("received_on", "analysis_id", "number", name=op.f("pk_cell")),
        postgresql_partition_by="RANGE (received_on)",
    )
    op.create_table(
        "field_result",
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("field_id", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("cells", sa.Integer(), server_default="0", nullable=False),
        sa.Column("on_border", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "reason", sa.String(), nullable=True, comment="Code of why the field could not be used; null: it was used"
        ),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column(
            "quality",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Measures with units, flags and notes",
        ),
        sa.Column(
            "rejected",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Objects that are no whole head: [{box, reason}]",
        ),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analysis.id"], name=op.f("fk_field_result_analysis_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["field_id"], ["field.id"], name=op.f("fk_field_result_field_id")),
        sa.PrimaryKeyConstraint("analysis_id", "field_id", name=op.f("pk_field_result")),
    )
    op.create_table(
        "review",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("class_index", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"], name=op.f("fk_review_analysis_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
        sa.UniqueConstraint("analysis_id", "number", "reviewer", name=op.f("uq_review_analysis_id_number_reviewer")),
    )
    op.create_table(
        "slide_class_count",
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("class_index", sa.SmallInteger(), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["analysis_id"], ["analysis.id"], name=op.f("fk_slide_class_count_analysis_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("analysis_id", "class_index", name=op.f("pk_slide_class_count")),
    )
    op.execute(MAKE_PARTITIONS)
    op.execute("select make_cell_partitions(current_date, 3)")


def downgrade() -> None:
    op.execute("drop function make_cell_partitions(date, integer)")
    op.drop_table("slide_class_count")
    op.drop_table("review")
    op.drop_table("field_result")
    op.drop_table("cell")
    op.drop_table("field")
    op.drop_index(op.f("ix_audit_event_batch_id"), table_name="audit_event")
    op.drop_table("audit_event")
    op.drop_index("ix_analysis_open", table_name="analysis", postgresql_where="state in ('queued', 'running')")
    op.drop_table("analysis")
    op.drop_index(op.f("ix_slide_specimen"), table_name="slide")
    op.drop_table("slide")
    op.drop_index("ix_batch_open", table_name="batch", postgresql_where="state in ('received', 'analysing')")
    op.drop_table("batch")
    op.drop_index("uq_model_release_active", table_name="model_release", postgresql_where="active")
    op.drop_table("model_release")
    op.drop_table("lab")
