"""A night has one definition, a function, that views and the service's own questions use."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

NIGHT_OF = """
create function reporting.night_of(at timestamptz, time_zone text) returns date
language sql immutable parallel safe return (at at time zone time_zone - interval '12 hours')::date
"""
MEANING = "Evening of the night that a moment belongs to: a night goes from noon to noon by the clock of the time zone"
ROLES = "morphbatch_analyst, morphbatch_service"

SLIDE_DAY = """
create or replace view reporting.slide_day as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, l.time_zone, s.collected_at, b.received_at,
    coalesce(s.collected_at, b.received_at) at time zone l.time_zone as local_time,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day,
    date_trunc('month', coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as month,
    {night} as night
from slide s
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
"""

THROUGHPUT = """
create or replace view reporting.throughput_by_night as
select {night} as night, s.lab, s.release_id,
    count(*) as slides, count(*) filter (where s.state = 'quarantined') as slides_quarantined,
    sum(s.fields)::bigint as fields, sum(s.cells)::bigint as cells, sum(s.seconds) as busy_seconds,
    min(s.started_at) as first_started_at, max(s.finished_at) as last_finished_at,
    sum(s.cells) / nullif(extract(epoch from max(s.finished_at) - min(s.started_at)), 0)::float8 as cells_per_second
from reporting.slide_result s
join lab l on l.code = s.lab
where s.finished_at is not null and s.state not in ('queued', 'running')
group by 1, s.lab, s.release_id
"""


def upgrade() -> None:
    op.execute(NIGHT_OF)
    op.execute(f"comment on function reporting.night_of(timestamptz, text) is '{MEANING}'")
    op.execute("revoke execute on function reporting.night_of(timestamptz, text) from public")
    op.execute(f"grant execute on function reporting.night_of(timestamptz, text) to {ROLES}")
    op.execute(SLIDE_DAY.format(night="reporting.night_of(b.received_at, l.time_zone)"))
    op.execute(THROUGHPUT.format(night="reporting.night_of(s.finished_at, l.time_zone)"))


def downgrade() -> None:
    op.execute(SLIDE_DAY.format(night="(b.received_at at time zone l.time_zone - interval '12 hours')::date"))
    op.execute(THROUGHPUT.format(night="(s.finished_at at time zone l.time_zone - interval '12 hours')::date"))
    op.execute("drop function reporting.night_of(timestamptz, text)")
