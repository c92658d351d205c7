"""What is asked of batches: which is meant, how far it is, whether it has ended."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, Lab, Slide
from services.database.queries import LATEST_ANALYSIS, NO_SLIDE_IS_OPEN, read_rows
from services.database.states import BatchState, SlideState


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch; `seconds` since its first slide was started, until the end of a closed one."""

    batch_key: int
    lab: str
    batch_id: str
    state: str
    received_at: datetime
    seconds: float
    problems: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide and the analysis of it that was asked for last; all `None` where it has none."""

    slide_id: str
    state: str | None
    cells_classified: int | None
    attempts: int | None
    reason: str | None
    detail: str | None


def batches_called(session: Session, batch_id: str, lab: str | None) -> dict[str, int]:
    """The keys of the batches with this id by lab; of one lab if it is named."""
    found = select(Lab.code, Batch.id).join(Batch.lab).where(Batch.batch_id == batch_id).order_by(Lab.code)
    return dict(session.execute(found if lab is None else found.where(Lab.code == lab)).all())


def latest_batches(session: Session, most: int) -> list[str]:
    """The last batches received, as lab/batch_id."""
    name = Lab.code + "/" + Batch.batch_id
    return list(session.scalars(select(name).join(Batch.lab).order_by(Batch.received_at.desc()).limit(most)))


def batch_row(session: Session, batch_key: int) -> BatchRow:
    """A batch that there is."""
    [row] = read_rows(
        session,
        BatchRow,
        "select batch.id as batch_key, lab.code as lab, batch_code as batch_id, batch.state, received_at,"
        " coalesce(extract(epoch from coalesce(closed_at, now()) - (select min(started_at) from analysis"
        "  join slide on slide.id = slide_id where slide.batch_id = batch.id)), 0)::float as seconds, problems"
        " from batch join lab on lab.id = batch.lab_id where batch.id = :key",
        key=batch_key,
    )
    return row


def slide_rows(session: Session, batch_key: int) -> list[SlideRow]:
    """The slides of a batch, in the order of its manifest."""
    return read_rows(
        session,
        SlideRow,
        "select slide_code as slide_id, latest.state, cells_classified, attempts, reason, detail"
        " from slide left join reporting.latest_analysis latest on latest.slide_key = slide.id"
        " where slide.batch_id = :key order by slide.position",
        key=batch_key,
    )


def some_quarantined(session: Session, batch_key: int) -> bool | None:
    """Of a batch that waits to be closed: whether slides are quarantined. `None` of one that does not wait for it."""
    return session.scalar(
        select(func.bool_or(Analysis.state == SlideState.QUARANTINED))
        .join(LATEST_ANALYSIS, LATEST_ANALYSIS.c.analysis_id == Analysis.id)
        .join(Slide, Slide.id == Analysis.slide_key)
        .join(Batch, Batch.id == Slide.batch_key)
        .where(Batch.id == batch_key, Batch.state == BatchState.ANALYSING, NO_SLIDE_IS_OPEN)
        .group_by(Batch.id)
    )


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """How many slides are tried again and again for one reason, and that reason's latest words."""

    reason: str
    detail: str
    slides: int


def waiting_slides(session: Session) -> list[WaitingRow]:
    """What open slides wait for that were tried and put back, also while they are tried again."""
    return read_rows(
        session,
        WaitingRow,
        "select reason, coalesce((array_agg(detail order by publish_at desc))[1], '') as detail, count(*) as slides"
        " from analysis where state in ('queued', 'running') and reason is not null"
        " group by reason order by slides desc, reason",
    )


def work_by_state(session: Session) -> dict[str, dict[str, int]]:
    """How many batches and slides are in which state, and slides put back to be tried again for which reason.

    Nothing of a database that is not migrated yet.
    """
    if session.scalar(text("select to_regclass('reporting.latest_analysis')")) is None:
        return {}
    counts: dict[str, dict[str, int]] = {
        what: dict(session.execute(text(f"select state, count(*) from {table} group by 1 order by 1")).all())
        for what, table in (("batches", "batch"), ("slides", "reporting.latest_analysis"))
    }
    return {**counts, "waiting": {f"{row.reason} ({row.detail})": row.slides for row in waiting_slides(session)}}
