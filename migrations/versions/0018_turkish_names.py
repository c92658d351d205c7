"""Two Turkish names of classes: a curly tail is not called as a bent one, and a pyriform head not a pear."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Class code, name, name before.
NAMES = (
    ("curly_tail", "Kıvrımlı kuyruk", "Kıvrık kuyruk"),
    ("pyriform_head", "Armut biçimli baş", "Armut baş"),
)


def upgrade() -> None:
    for code, name, _ in NAMES:
        _rename(code, name)


def downgrade() -> None:
    for code, _, name in NAMES:
        _rename(code, name)


def _rename(code: str, name: str) -> None:
    rename = sa.text("update reporting.morphology_class set class_name_tr = :name where class_code = :code")
    op.execute(rename.bindparams(name=name, code=code))
