"""Results are delivered to a lab's LIMS: where to, and every message with what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "delivery_target",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("lab_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False, comment="URL; of MLLP host:port"),
        sa.Column("secret", sa.String(), comment="Signs webhooks; bearer token of FHIR"),
        sa.Column("ca_file", sa.String(), comment="Certificates that its own is checked by; null: the system's"),
        sa.Column("certificate_file", sa.String(), comment="Our certificate, where it asks for one"),
        sa.Column("key_file", sa.String(), comment="Key of our certificate"),
        sa.Column(
            "active", sa.Boolean(), server_default="true", nullable=False, comment="New reports are delivered to it"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("kind in ('webhook', 'mllp', 'fhir')", name=op.f("ck_delivery_target_kind_known")),
        sa.ForeignKeyConstraint(["lab_id"], ["lab.id"], name=op.f("fk_delivery_target_lab_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_target")),
        sa.UniqueConstraint("lab_id", "kind", "address", name=op.f("uq_delivery_target_lab_id_kind_address")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, comment="Of the report"),
        sa.Column(
            "file",
            sa.String(),
            nullable=False,
            comment="What is sent, as its report lists it; report.json: that it is issued",
        ),
        sa.Column("sha256", sa.String(), comment="Of what is sent; null: it is made when it is sent"),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("lease_token", sa.String(), comment="The attempt that is sending it"),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.String(), comment="Code of what became of the last attempt; null: it was taken"),
        sa.Column("answer", sa.String(), comment="The same in words: what the target said"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), comment="When it was delivered, stopped or dropped"),
        sa.CheckConstraint(
            "state in ('waiting', 'delivered', 'stopped', 'dropped')", name=op.f("ck_delivery_state_known")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_delivery_batch_id")),
        sa.ForeignKeyConstraint(["target_id"], ["delivery_target.id"], name=op.f("fk_delivery_target_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint(
            "target_id", "batch_id", "revision", "file", name=op.f("uq_delivery_target_id_batch_id_revision_file")
        ),
    )
    op.create_index(op.f("ix_delivery_batch_id"), "delivery", ["batch_id"])
    op.create_index("ix_delivery_open", "delivery", ["target_id", "id"], postgresql_where=sa.text("state = 'waiting'"))
    op.create_index("ix_delivery_stopped", "delivery", ["id"], postgresql_where=sa.text("state = 'stopped'"))
    op.execute("grant select, insert, update on delivery_target, delivery to morphbatch_service")


def downgrade() -> None:
    if op.get_bind().execute(sa.text("select from delivery where state in ('waiting', 'stopped')")).first() is not None:
        raise RuntimeError(
            "some results are not delivered yet, and would be forgotten: let them be sent, or drop them"
            " (`morphbatch deliveries`)"
        )
    op.drop_table("delivery")
    op.drop_table("delivery_target")
