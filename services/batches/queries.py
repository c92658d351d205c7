"""What is asked of batches: which is meant, how far it is, whether it has ended."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, Lab, Slide
from services.database.queries import LATEST_ANALYSIS, NO_SLIDE_IS_OPEN, read_rows
from services.database.states import SLIDE_ENDED, BatchMove, BatchState, SlideState


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch; `seconds` since its first slide was started, until the end of a closed one.

    `held`: the code of why slides of it may not be started now, `None` where they may, or it is closed; `window` of its
    lab. `paused_at`, `paused_by` and `pause_why` are those of the lab if it is paused, else of the batch.
    """

    batch_key: int
    lab: str
    batch_id: str
    state: str
    received_at: datetime
    seconds: float
    problems: list[dict[str, str]]
    urgent: bool
    held: str | None
    window: str
    paused_at: datetime | None
    paused_by: str | None
    pause_why: str | None

    def __str__(self) -> str:
        return f"{self.lab} {self.batch_id}"


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
        "  join slide on slide.id = slide_id where slide.batch_id = batch.id)), 0)::float as seconds, problems,"
        " urgent, (select held from operations.open_batch where batch_key = batch.id) as held,"
        " coalesce(to_char(window_opens, 'HH24:MI-') || to_char(window_closes, 'HH24:MI'), '') as window,"
        " coalesce(lab.paused_at, batch.paused_at) as paused_at,"
        " case when lab.paused_at is null then batch.paused_by else lab.paused_by end as paused_by,"
        " case when lab.paused_at is null then batch.pause_why else lab.pause_why end as pause_why"
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


def name_of(session: Session, batch_key: int) -> tuple[str, str]:
    """The lab and the id of a batch."""
    found = select(Lab.code, Batch.batch_id).join(Batch.lab).where(Batch.id == batch_key)
    lab, batch_id = session.execute(found).one()
    return lab, batch_id


def closing_of(session: Session, batch_key: int) -> BatchMove | None:
    """The move that closes a batch which waits for it; `None` of one that does not wait for it."""
    found = session.execute(
        select(Batch.cancelled_at, func.bool_or(Analysis.state == SlideState.QUARANTINED))
        .join(Slide, Slide.batch_key == Batch.id)
        .join(Analysis, Analysis.slide_key == Slide.id)
        .join(LATEST_ANALYSIS, LATEST_ANALYSIS.c.analysis_id == Analysis.id)
        .where(Batch.id == batch_key, Batch.state == BatchState.ANALYSING, NO_SLIDE_IS_OPEN)
        .group_by(Batch.id)
    ).one_or_none()
    if found is None:
        return None
    cancelled_at, quarantined = found
    if cancelled_at is not None:
        return BatchMove.CLOSE_CANCELLED
    return BatchMove.CLOSE_WITH_ERRORS if quarantined else BatchMove.CLOSE


def may_start(session: Session, most: int) -> list[int]:
    """At most so many analyses that may be started now, in no order."""
    return list(
        session.scalars(
            text(
                "select a.id from operations.open_batch b join slide s on s.batch_id = b.batch_key"
                " join analysis a on a.slide_id = s.id"
                " where b.held is null and a.state = 'queued' and a.publish_at <= now() limit :most"
            ),
            {"most": most},
        )
    )


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A lab (without a `batch_id`) or a batch that is paused."""

    lab: str
    batch_id: str | None
    paused_at: datetime
    by: str
    why: str

    def __str__(self) -> str:
        name = f"lab {self.lab}" if self.batch_id is None else f"batch {self.lab}/{self.batch_id}"
        return f"{name}, paused since {self.paused_at:%Y-%m-%d %H:%M} UTC by {self.by}: {self.why}"


def held_back(session: Session) -> list[HeldBack]:
    """Every lab and every open batch that is paused, the longest first."""
    return read_rows(
        session,
        HeldBack,
        "select code as lab, null as batch_id, paused_at, paused_by as by, pause_why as why"
        " from lab where paused_at is not null union all"
        " select l.code, b.batch_code, b.paused_at, b.paused_by, b.pause_why from batch b join lab l on l.id = b.lab_id"
        " where b.paused_at is not null and b.state = 'analysing' order by 3",
    )


@dataclass(frozen=True, slots=True)
class SignatureRow:
    """A field that is used, by what it shows."""

    field_id: int
    slide_key: int
    analysis_id: int
    received_on: date
    signature: bytes


def signature_rows(session: Session, batch_key: int) -> list[SignatureRow]:
    """The fields of a batch that are told by what they show, of the analyses that count; as the manifest has them."""
    return read_rows(
        session,
        SignatureRow,
        "select r.field_id, s.id as slide_key, r.analysis_id, b.received_on, r.signature"
        " from slide s join batch b on b.id = s.batch_id"
        " join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')"
        " join field_result r on r.analysis_id = a.analysis_id"
        " where s.batch_id = :key and r.reason is null and r.signature is not null order by r.field_id",
        key=batch_key,
    )


def places_of_heads(session: Session, fields: Sequence[SignatureRow]) -> dict[int, list[tuple[float, float]]]:
    """By field_id, where the middles of its heads lie: 0 to 1 across and down."""
    places: dict[int, list[tuple[float, float]]] = defaultdict(list)
    if not fields:
        return places
    rows = session.execute(
        text(
            "select c.field_id, (c.x0 + c.x1) / 2.0 / r.width_px, (c.y0 + c.y1) / 2.0 / r.height_px"
            " from cell c join field_result r on r.analysis_id = c.analysis_id and r.field_id = c.field_id"
            " where c.received_on = :day and c.analysis_id = any(:analyses) and c.field_id = any(:fields)"
        ),
        {
            "day": fields[0].received_on,
            "analyses": sorted({row.analysis_id for row in fields}),
            "fields": [row.field_id for row in fields],
        },
    )
    for field_id, across, down in rows:
        places[field_id].append((float(across), float(down)))
    return places


def note_same_pictures(session: Session, batch_key: int, first_of: Mapping[int, int]) -> None:
    """Put fields, and the first of the batch that shows the same as each, in the place of what was noted before."""
    session.execute(
        text(
            "delete from same_picture where field_id in"
            " (select f.id from field f join slide s on s.id = f.slide_id where s.batch_id = :key)"
        ),
        {"key": batch_key},
    )
    if first_of:
        rows = [{"field": field, "first": first} for field, first in first_of.items()]
        session.execute(text("insert into same_picture (field_id, first_field_id) values (:field, :first)"), rows)


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


@dataclass(frozen=True, slots=True)
class SentTwiceRow:
    """A batch some of whose images its lab had sent in another batch before; neither is voided."""

    lab: str
    batch_id: str
    first_batch_id: str
    fields: int


def batches_sent_twice(session: Session, days: int) -> list[SentTwiceRow]:
    """Those received in the last `days` days, the latest first."""
    return read_rows(
        session,
        SentTwiceRow,
        "select lab, batch_id, first_batch_id, count(*) as fields from reporting.shared_field"
        " where received_on > current_date - cast(:days as integer) and first_batch_key <> batch_key"
        " group by lab, batch_key, batch_id, first_batch_id order by batch_key desc, first_batch_id",
        days=days,
    )


def work_by_state(session: Session) -> dict[str, dict[str, int]]:
    """How many batches and slides are in which state, slides held back, and put back to be tried again, by reason.

    Nothing of a database that is not migrated yet.
    """
    if session.scalar(text("select to_regclass('reporting.latest_analysis')")) is None:
        return {}
    counts: dict[str, dict[str, int]] = {
        what: dict(session.execute(text(f"select state, count(*) from {table} group by 1 order by 1")).all())
        for what, table in (("batches", "batch"), ("slides", "reporting.latest_analysis"))
    }
    held = session.execute(
        text(
            "select b.held, count(*) from operations.open_batch b join slide s on s.batch_id = b.batch_key"
            " join analysis a on a.slide_id = s.id"
            " where a.state = 'queued' and b.held is not null group by 1 order by 1"
        )
    )
    waiting = {f"{row.reason} ({row.detail})": row.slides for row in waiting_slides(session)}
    return {**counts, "held": dict(held.all()), "waiting": waiting}


@dataclass(frozen=True, slots=True)
class WorkNow:
    """The work at this moment; `batches`, `slides` and `quarantined` of what is open or was received within a day.

    Slides that are queued and may not be started now are `held`, and not `queued`. `oldest_s`: by state, since the
    oldest queued slide was asked for and the oldest running attempt began, seconds.
    """

    batches: dict[str, float]
    unclosed: int
    slides: dict[str, float]
    quarantined: dict[str, float]
    waiting: dict[str, float]
    oldest_s: dict[str, float]
    expired_leases: int
    outstanding_fields: int


_RECENT: Final = (
    "with recent as (select id, state from batch"
    f" where state = '{BatchState.ANALYSING}' or received_at > now() - interval '24 hours') "
)
_OPEN: Final = (
    "select count(*) filter (where state = 'running' and lease_until < now()) as expired_leases,"
    " coalesce(extract(epoch from now() - min(a.queued_at) filter (where b.held is null and a.state = 'queued')), 0)"
    "  as queued,"
    " coalesce(extract(epoch from now() - min(started_at) filter (where state = 'running')), 0) as running"
    " from analysis a join slide s on s.id = a.slide_id join operations.open_batch b on b.batch_key = s.batch_id"
    " where a.state in ('queued', 'running')"
)


def work_now(session: Session, *, patience_s: float) -> WorkNow:
    """What there is to do, and what is in trouble; each question is given up after `patience_s`.

    Raises:
        DatabaseBusy: it was.
    """
    session.execute(text("select set_config('statement_timeout', :limit, true)"), {"limit": f"{patience_s * 1000:.0f}"})
    batches = session.execute(text(f"{_RECENT} select state, count(*) from recent group by 1")).all()
    slides = session.execute(
        text(
            f"{_RECENT} select case when held is not null and coalesce(now.state, 'queued') = 'queued' then 'held'"
            " else coalesce(now.state, 'queued') end, now.reason, count(*)"
            " from recent join slide on slide.batch_id = recent.id"
            " left join reporting.latest_analysis now on now.slide_key = slide.id"
            " left join operations.open_batch on batch_key = recent.id group by 1, 2"
        )
    ).all()
    now = session.execute(text(_OPEN)).one()
    by_state: Counter[str] = Counter(dict.fromkeys([*map(str, SlideState), "held"], 0))
    quarantined: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for state, reason, count in slides:
        by_state[state] += count
        if state == SlideState.QUARANTINED:
            quarantined[reason] += count
        elif state not in SLIDE_ENDED and reason is not None:
            waiting[reason] += count
    return WorkNow(
        batches={**dict.fromkeys(BatchState, 0), **dict(batches)},
        unclosed=session.scalars(
            select(func.count()).where(Batch.state == BatchState.ANALYSING, NO_SLIDE_IS_OPEN)
        ).one(),
        slides=dict(by_state),
        quarantined=dict(quarantined),
        waiting=dict(waiting),
        oldest_s={SlideState.QUEUED: float(now.queued), SlideState.RUNNING: float(now.running)},
        expired_leases=now.expired_leases,
        outstanding_fields=session.execute(
            text("select coalesce(sum(fields), 0)::bigint from operations.outstanding")
        ).scalar_one(),
    )


@dataclass(frozen=True, slots=True)
class NightBatch:
    """A batch that was received in a night, its slides by the state of what was asked for last, and their cells.

    `held`: the code of why slides of it may not be started now; `None` where they may, or it is closed.
    """

    lab: str
    batch_id: str
    state: str
    received_at: datetime
    closed_at: datetime | None
    problems: int
    done: int
    insufficient: int
    quarantined: int
    cancelled: int
    open: int
    urgent: bool
    held: str | None
    cells: int
    first_started_at: datetime | None
    last_finished_at: datetime | None

    def __str__(self) -> str:
        return f"{self.lab}/{self.batch_id}"


@dataclass(frozen=True, slots=True)
class NightTrouble:
    """Slides of these batches that are quarantined, or were put back, for one reason; the words of one of them."""

    state: str
    reason: str
    slides: int
    batches: list[str]
    detail: str


@dataclass(frozen=True, slots=True)
class LabNight:
    """The evening of the night that is meant at a lab, from noon to noon by the clock of its time zone."""

    lab: str
    time_zone: str
    evening: date


# The evening that was asked for, else that of the night 12 hours ago: at the lab, this night ends in the morning, and
# is over in the afternoon.
_ASKED: Final = (
    "with asked as (select id, code, time_zone, coalesce(cast(:evening as date),"
    " reporting.night_of(cast(:now as timestamptz) - interval '12 hours', time_zone)) as evening from lab) "
)
# Whatever the time zones are: so that the index on received_at is used, and years of other nights are not read.
_ABOUT_THEN: Final = (
    " b.received_at >= (select min(evening) from asked) - {nights_before}"
    " and b.received_at < (select max(evening) from asked) + 3"
)
_OF_THE_NIGHT: Final = (
    " from batch b join asked l on l.id = b.lab_id left join slide s on s.batch_id = b.id"
    " left join reporting.latest_analysis a on a.slide_key = s.id"
    f" where {_ABOUT_THEN.format(nights_before=2)} and reporting.night_of(b.received_at, l.time_zone) = l.evening"
)


def lab_nights(session: Session, now: datetime, evening: date | None) -> list[LabNight]:
    """The night of that evening at each lab, by the labs' codes; without one, the last night by each lab's clock."""
    select_labs = "select code as lab, time_zone, evening from asked order by code"
    return read_rows(session, LabNight, _ASKED + select_labs, now=now, evening=evening)


def night_batches(session: Session, now: datetime, evening: date | None) -> list[NightBatch]:
    """The batches received in these nights, by lab and id."""
    open_state = "s.id is not null and coalesce(a.state, 'queued') in ('queued', 'running')"
    return read_rows(
        session,
        NightBatch,
        f"{_ASKED}select l.code as lab, b.batch_code as batch_id, b.state, b.received_at, b.closed_at,"
        " jsonb_array_length(b.problems) as problems,"
        " count(*) filter (where a.state = 'done') as done,"
        " count(*) filter (where a.state = 'insufficient') as insufficient,"
        " count(*) filter (where a.state = 'quarantined') as quarantined,"
        " count(*) filter (where a.state = 'cancelled') as cancelled, b.urgent,"
        " (select held from operations.open_batch where batch_key = b.id) as held,"
        f" count(*) filter (where {open_state}) as open,"
        " coalesce(sum(a.cells_classified), 0)::bigint as cells,"
        " min(a.started_at) as first_started_at, max(a.finished_at) as last_finished_at"
        f"{_OF_THE_NIGHT} group by b.id, l.code order by 1, 2",
        now=now,
        evening=evening,
    )


def night_troubles(session: Session, now: datetime, evening: date | None) -> list[NightTrouble]:
    """Why slides of these batches have no result, the most frequent reason first."""
    return read_rows(
        session,
        NightTrouble,
        f"{_ASKED}select a.state, a.reason, count(*) as slides,"
        " array_agg(distinct l.code || '/' || b.batch_code) as batches, coalesce(min(a.detail), '') as detail"
        f"{_OF_THE_NIGHT} and a.reason is not null and a.state not in ('done', 'insufficient')"
        " group by 1, 2 order by 3 desc, 2",
        now=now,
        evening=evening,
    )


def silent_labs(session: Session, now: datetime, evening: date | None, nights: int) -> list[str]:
    """Labs that sent nothing in this night, and did in each of the `nights` before."""
    before = "l.evening - reporting.night_of(b.received_at, l.time_zone)"
    found = session.scalars(
        text(
            f"{_ASKED}select code from (select l.code, {before} as before from asked l join batch b on b.lab_id = l.id"
            f" where {_ABOUT_THEN.format(nights_before='(cast(:nights as integer) + 2)')}) received"
            " where before between 0 and :nights group by code"
            " having min(before) > 0 and count(distinct before) = :nights order by 1"
        ),
        {"now": now, "evening": evening, "nights": nights},
    )
    return list(found)
