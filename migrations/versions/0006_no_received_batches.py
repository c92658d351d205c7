"""A batch begins as `analysing` or `rejected`: no transaction ever left one as `received`."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATES = "analysing", "complete", "complete_with_errors", "rejected"


def upgrade() -> None:
    op.alter_column("batch", "state", server_default=None)
    _allow(STATES, open_ones=("analysing",))


def downgrade() -> None:
    op.alter_column("batch", "state", server_default="received")
    _allow(("received", *STATES), open_ones=("received", "analysing"))


def _allow(states: tuple[str, ...], open_ones: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_batch_state_known"), "batch")
    op.create_check_constraint(op.f("ck_batch_state_known"), "batch", f"state in ({_quoted(states)})")
    op.drop_index("ix_batch_open", "batch")
    op.create_index("ix_batch_open", "batch", ["id"], postgresql_where=f"state in ({_quoted(open_ones)})")
    op.execute(f"comment on column reporting.batch_overview.state is '{', '.join(states[:-1])} or {states[-1]}'")


def _quoted(states: tuple[str, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)
