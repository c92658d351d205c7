"""Batches may be announced and sent over HTTP; changes asked for there may be repeated and are made once."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Both tables, and the index by which a lab's batches are listed."""
    op.create_table(
        "submission",
        sa.Column("lab_id", sa.Integer(), nullable=False),
        sa.Column("batch_code", sa.String(), nullable=False, comment="batch_id of the manifest"),
        sa.Column(
            "manifest", postgresql.JSONB(), nullable=False, comment="The manifest that is written when it is committed"
        ),
        sa.Column("sizes", postgresql.JSONB(), nullable=False, comment="Bytes of each field by its key"),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "committed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the manifest was written; null: it is not yet",
        ),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_submission_lab_id")),
        sa.PrimaryKeyConstraint("lab_id", "batch_code", name=op.f("pk_submission")),
    )
    op.create_table(
        "api_request",
        sa.Column("lab_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False, comment="SHA-256 of what was asked"),
        sa.Column("status", sa.SmallInteger(), nullable=True, comment="Of the answer; null: it is being answered"),
        sa.Column("answer", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_api_request_lab_id")),
        sa.PrimaryKeyConstraint("lab_id", "key", name=op.f("pk_api_request")),
    )
    op.execute("grant select, insert, update, delete on submission, api_request to morphbatch_service")
    op.create_index("ix_batch_lab_id_id", "batch", ["lab_id", "id"])


def downgrade() -> None:
    """Without them."""
    op.drop_index("ix_batch_lab_id_id", "batch")
    op.drop_table("api_request")
    op.drop_table("submission")
