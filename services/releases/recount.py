"""Which of the stored cells count under a release, before its fusion is applied to them."""

from collections.abc import Sequence
from datetime import date
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.releases.schema import Release

# A cell on record from before shares were stored has its box: the share follows from it, but for frames over the field.
_SHARE: Final = """
coalesce(c.crop_inside_share, case when f.kind = 'field' then greatest(0,
    (least(r.width_px, (c.x0 + c.x1 + side) / 2) - greatest(0, (c.x0 + c.x1 - side) / 2))
    * (least(r.height_px, (c.y0 + c.y1 + side) / 2) - greatest(0, (c.y0 + c.y1 - side) / 2)) / side ^ 2) end)::real
"""


def recount(session: Session, release: Release, day: date, analyses: Sequence[int]) -> None:
    """Leave in the session's tables what of `analyses`, all of batches received on `day`, counts under the release.

    `uncounted` has the cells that do not count: analysis_id, number, crop_inside_share, not_counted. `recounted` has
    each analysis with the cells that do, and the others by reason: analysis_id, cells_classified,
    not_counted_by_reason. The tables are of this transaction, and hold nothing else. What was seen of a cell in its
    field stands; whether the border cuts it is decided again.
    """
    session.execute(text(_TABLES))
    session.execute(text("truncate uncounted, recounted"))
    values = {"day": day, "ids": list(analyses)}
    if release.minimum_crop_inside_share is not None or session.execute(text(_HAS_SOME), values).first() is not None:
        session.execute(
            text(
                "insert into uncounted select analysis_id, number, share, reason from ("
                " select c.analysis_id, c.number, share, case when c.not_counted = 'not_a_sperm' then c.not_counted"
                "  when share < cast(:minimum as real) then 'cut_by_border'"
                "  when c.not_counted <> 'cut_by_border' then c.not_counted end as reason"
                " from cell c join analysis a on a.id = c.analysis_id join slide s on s.id = a.slide_id"
                " join field f on f.id = c.field_id"
                " join field_result r on r.analysis_id = c.analysis_id and r.field_id = c.field_id"
                " cross join lateral (select cast(:crop_um as float8) / s.um_per_px as side) crop"
                f" cross join lateral (select {_SHARE} as share) measured"
                " where c.received_on = :day and c.analysis_id = any(:ids)) judged where reason is not null"
            ),
            {**values, "minimum": release.minimum_crop_inside_share, "crop_um": release.crop_um},
        )
    session.execute(
        text(
            "insert into recounted select a.id,"
            " a.cells_classified + reporting.sum_of(a.not_counted_by_reason) - reporting.sum_of(now.by_reason),"
            " now.by_reason from analysis a cross join lateral ("
            "  select coalesce(jsonb_object_agg(not_counted, cells), '{}') as by_reason from ("
            "   select not_counted, count(*) as cells from uncounted where analysis_id = a.id group by 1) counts"
            " ) now where a.id = any(:ids)"
        ),
        values,
    )


_TABLES: Final = """
create temporary table if not exists uncounted (
    analysis_id integer, number integer, crop_inside_share real, not_counted varchar, primary key (analysis_id, number)
) on commit drop;
create temporary table if not exists recounted (
    analysis_id integer primary key, cells_classified integer, not_counted_by_reason jsonb
) on commit drop
"""
_HAS_SOME: Final = "select from analysis where id = any(:ids) and not_counted_by_reason <> '{}'"
