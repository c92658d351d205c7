"""What this room asks the database: a night as it was, to be played again."""

from datetime import date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.capacity.errors import NightRefused
from services.capacity.nights import Night, Slide, after_noon

_OF_NIGHT = text("""
select b.received_at, b.lab_id, b.urgent, l.time_zone, a.finished_at,
    (b.received_at at time zone l.time_zone)::time as clock,
    (select count(*) from field f where f.slide_id = s.id) as fields,
    a.cells_classified + reporting.sum_of(a.not_counted_by_reason) as cells
from batch b
join lab l on l.id = b.lab_id
join slide s on s.batch_id = b.id
join analysis a on a.slide_id = s.id and a.version = 1 and a.fused_from is null
where reporting.night_of(b.received_at, l.time_zone) = :evening
    and b.received_at between :earliest and :latest and a.state in ('done', 'insufficient')
order by b.received_at, b.id, s.position
""")


def recorded_night(session: Session, evening: date, megabytes: float) -> tuple[Night, float]:
    """The slides of a night that have a result, and when the last was committed, in seconds after that noon.

    The night's clock is that of the lab whose batch came first. A field has so many `megabytes`: nothing on record
    says how many.

    Raises:
        NightRefused: no slide of that night has a result.
    """
    noon = datetime.combine(evening, datetime.min.time())
    around = {"earliest": noon - timedelta(hours=14), "latest": noon + timedelta(hours=60)}
    rows = session.execute(_OF_NIGHT, {"evening": evening, **around}).all()
    if not rows:
        raise NightRefused(f"no slide of the night of {evening} has a result: `morphbatch night --date {evening}`")
    first = rows[0].received_at
    begins = after_noon(rows[0].clock.replace(microsecond=0))
    slides = [
        Slide((row.received_at - first).total_seconds() + begins, row.lab_id, row.fields, row.cells,
              row.fields * megabytes, row.urgent)
        for row in rows
    ]  # fmt: skip
    ended = max(row.finished_at for row in rows)
    return Night(slides), (ended - first).total_seconds() + begins
