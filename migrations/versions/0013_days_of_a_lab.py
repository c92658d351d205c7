"""A lab has a time zone and a slide a time of collection, so that days, nights and months are the lab's."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SLIDE_DAY = """
create view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    (b.received_at at time zone l.time_zone - interval '12 hours')::date as night
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
"""

THROUGHPUT = """
create or replace view reporting.throughput_by_night as
select (s.finished_at at time zone {zone} - interval '12 hours')::date as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells)::bigint as cells, sum(s.seconds) as busy_seconds,
    min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells) / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
{join}
where s.finished_at is not null and s.state not in ('queued', 'running')
group by 1, s.lab, s.release_id
"""
OF_THE_LAB = THROUGHPUT.format(zone="l.time_zone", join="join lab l on l.code = s.lab")
OF_UTC = THROUGHPUT.format(zone="'UTC'", join="")

TIME_ZONE = "IANA name of the zone by whose clock its days begin"
COLLECTED_AT = "When the specimen was collected, as the manifest says; null: it does not"

COMMENTS = {
    "view reporting.slide_day": "One row per slide: its day and month at the lab, by its collection, else by its"
    " receipt, and the night of receipt",
    "column reporting.slide_day.batch_key": "Internal key of the batch; joins the views",
    "column reporting.slide_day.lab": "Code of the laboratory",
    "column reporting.slide_day.batch_id": "batch_id of the manifest; unique within a lab",
    "column reporting.slide_day.received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "column reporting.slide_day.slide_key": "Internal key of the slide",
    "column reporting.slide_day.slide_id": "slide_id of the manifest; unique within a batch",
    "column reporting.slide_day.specimen": "Pseudonym of the specimen",
    "column reporting.slide_day.replicate": "1 or 2",
    "column reporting.slide_day.time_zone": TIME_ZONE,
    "column reporting.slide_day.collected_at": COLLECTED_AT,
    "column reporting.slide_day.received_at": "When the manifest was read",
    "column reporting.slide_day.local_time": "By the lab's clock: when it was collected, else received",
    "column reporting.slide_day.day": "Day of that time",
    "column reporting.slide_day.month": "First day of the month of that time",
    "column reporting.slide_day.night": "Evening of the night of receipt, from noon to noon by the lab's clock",
    "column reporting.throughput_by_night.night": "Evening of the night, from noon to noon by the lab's clock",
    "view reporting.throughput_by_night": "One row per night (noon to noon by the lab's clock, named by its evening),"
    " lab and release: work done and its speed",
}
BEFORE = {
    "column reporting.throughput_by_night.night": "Evening of the night, from noon to noon UTC",
    "view reporting.throughput_by_night": "One row per night (noon to noon UTC, named by its evening), lab and"
    " release: work done and its speed",
}


def upgrade() -> None:
    op.add_column("lab", sa.Column("time_zone", sa.String(), server_default="UTC", nullable=False, comment=TIME_ZONE))
    op.add_column("slide", sa.Column("collected_at", sa.DateTime(timezone=True), nullable=True, comment=COLLECTED_AT))
    op.execute("grant update (time_zone) on lab to morphbatch_service")
    op.execute(SLIDE_DAY)
    op.execute(OF_THE_LAB)
    for what, comment in COMMENTS.items():
        op.execute(f"comment on {what} is '{comment.replace(chr(39), chr(39) * 2)}'")


def downgrade() -> None:
    op.execute(OF_UTC)
    op.execute("drop view reporting.slide_day")
    for what, comment in BEFORE.items():
        op.execute(f"comment on {what} is '{comment}'")
    op.execute("revoke update (time_zone) on lab from morphbatch_service")
    op.drop_column("slide", "collected_at")
    op.drop_column("lab", "time_zone")
