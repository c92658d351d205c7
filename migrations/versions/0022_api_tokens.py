"""Labs get tokens for the HTTP service; of their secrets only hashes are kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The table, and what the service does with it."""
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(), nullable=False, comment="The part of the token that is no secret"),
        sa.Column("lab_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False, comment="Whose it is: a program or a place, never a person"),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False, comment="argon2id of the secret"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.String(), nullable=True),
        sa.Column("replaces", sa.String(), nullable=True, comment="Token that it was rotated from"),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 and scopes <@ array['upload', 'read', 'review', 'administer']",
            name=op.f("ck_api_token_scopes_known"),
        ),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_api_token_lab_id")),
        sa.ForeignKeyConstraint(["replaces"], ["api_token.id"], name=op.f("fk_api_token_replaces")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
    )
    op.create_index(op.f("ix_api_token_lab_id"), "api_token", ["lab_id"])
    op.execute("grant select, insert, update (expires_at, revoked_at, revoked_by) on api_token to morphbatch_service")


def downgrade() -> None:
    """Without tokens."""
    op.drop_table("api_token")
