"""A lab may be set to test, so that results that are not for use go out to its LIMS, marked."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "It tests: results of any release go out to its LIMS, marked as test data"
    op.add_column("lab", sa.Column("tests", sa.Boolean(), server_default="false", nullable=False, comment=comment))
    op.execute("grant update (tests) on lab to morphbatch_service")


def downgrade() -> None:
    op.drop_column("lab", "tests")
