"""A slide says which order it answers, its accession number, its sample type, and the lot of its stain."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COLUMNS = {
    "order_number": "Number of the order that its result answers",
    "accession_number": "Number under which the lab took the specimen in",
    "sample_type": "Code of what the specimen is; null: not said",
    "stain_lot": "Lot of the stain",
}
SLIDE_DAY = """
create or replace view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    reporting.night_of(b.received_at, l.time_zone) as night, s.order_number, s.accession_number, s.sample_type,
    s.stain_lot
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
"""
SLIDE_DAY_BEFORE = """
create view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    reporting.night_of(b.received_at, l.time_zone) as night
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
"""
COMMENTS = {
    "order_number": "Number of the order that its result answers; null: not in the manifest",
    "accession_number": "Number under which the lab took the specimen in; null: not in the manifest",
    "sample_type": "Code of what the specimen is; null: not in the manifest",
    "stain_lot": "Lot of the stain; null: not in the manifest",
}


def upgrade() -> None:
    for name, comment in COLUMNS.items():
        op.add_column("slide", sa.Column(name, sa.String(), comment=comment))
    op.execute(SLIDE_DAY)
    for name, comment in COMMENTS.items():
        _comment(f"column reporting.slide_day.{name}", comment)


def downgrade() -> None:
    comments = op.get_bind().execute(
        sa.text(
            "select attname, col_description(attrelid, attnum), obj_description(attrelid, 'pg_class')"
            " from pg_attribute where attrelid = 'reporting.slide_day'::regclass and attnum > 0"
        )
    )
    standing = comments.all()
    op.execute("drop view reporting.slide_day")  # a view loses a column no other way, and its comments with it
    op.execute(SLIDE_DAY_BEFORE)
    _comment("view reporting.slide_day", standing[0][2])
    for name, comment, _ in standing:
        if name not in COMMENTS:
            _comment(f"column reporting.slide_day.{name}", comment)
    for name in COLUMNS:
        op.drop_column("slide", name)


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    op.execute(f"comment on {subject} is '{quoted}'")
