"""A stain is stored under one code, however it was written; what is not known by name stays as it was given."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# code: the letters and digits of what was written
WRITTEN = {
    "papanicolaou": ("papanicolaou", "pap", "papanicolau", "papanikolaou"),
    "shorr": ("shorr", "schorr"),
    "diff-quik": ("diffquik", "diffquick", "dq"),
    "giemsa": ("giemsa",),
    "may-gruenwald-giemsa": ("maygruenwaldgiemsa", "maygrunwaldgiemsa", "mgg", "pappenheim"),
    "leishman": ("leishman",),
    "bryan-leishman": ("bryanleishman",),
    "wright": ("wright",),
    "wright-giemsa": ("wrightgiemsa",),
    "hematoxylin-eosin": ("hematoxylineosin", "haematoxylineosin", "he"),
    "sperm-stain": ("spermstain",),
    "spermac": ("spermac",),
    "spermblue": ("spermblue",),
    "hemacolor": ("hemacolor",),
    "testsimplets": ("testsimplets",),
    "unknown": ("unknown", "unspecified", "notspecified"),
}


def upgrade() -> None:
    slides = sa.text(
        "update slide set stain = :code"
        " where stain <> :code and regexp_replace(lower(stain), '[^a-z0-9]', '', 'g') = any(:written)"
    )
    for code, written in WRITTEN.items():
        op.execute(slides.bindparams(code=code, written=list(written)))


def downgrade() -> None:
    """The code is one of the ways to write it; the manifest holds what was written."""
