"""What is asked for the program of a lab."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services.database.audit import AuditKind
from services.database.models import ApiRequest, Batch, Lab, Submission
from services.database.queries import read_rows


@dataclass(frozen=True, slots=True)
class SubmissionRow:
    """A batch that was announced: its manifest, and the size in bytes of each of its fields by key."""

    manifest: dict[str, Any]
    sizes: dict[str, int]
    created_at: datetime
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedBatch:
    """A batch in a list; `batch_key` orders them by receipt."""

    batch_key: int
    batch_id: str
    state: str
    received_at: datetime
    closed_at: datetime | None
    voided_at: datetime | None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch, its problems if it was rejected, and how many fields it has."""

    batch_key: int
    state: str
    received_at: datetime
    closed_at: datetime | None
    voided_at: datetime | None
    void_why: str | None
    problems: list[dict[str, str]]
    fields: int


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide that is quarantined or waits after a failure."""

    slide_id: str
    state: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened to a batch."""

    event_id: int
    at: datetime
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request that was made under an idempotency key; `status` is null while it is being answered."""

    fingerprint: str
    status: int | None
    answer: dict[str, Any] | None


SHOWN: Final = tuple(
    kind.value
    for kind in (
        AuditKind.BATCH_SUBMITTED,
        AuditKind.BATCH_REGISTERED,
        AuditKind.MANIFEST_REJECTED,
        AuditKind.MANIFEST_REFUSED,
        AuditKind.SLIDE_QUARANTINED,
        AuditKind.SLIDES_REQUEUED,
        AuditKind.SLIDES_MOVED_TO_RELEASE,
        AuditKind.SLIDES_FUSED_ANEW,
        AuditKind.BATCH_CANCELLED,
        AuditKind.BATCH_VOIDED,
        AuditKind.BATCH_RESTORED,
        AuditKind.BATCH_CLOSED,
    )
)
"""The kinds of events that a lab is told of: what happened to its batches, not who read them."""

# An event that was recorded beside another one may become visible after it: events wait until both are.
_SETTLED: Final = "interval '2 seconds'"


def submission_row(session: Session, lab: str, batch_id: str, *, locked: bool = False) -> SubmissionRow | None:
    """What the lab has announced under this id; `None` of nothing. `locked`: nobody else changes it meanwhile."""
    asked = (
        select(Submission.manifest, Submission.sizes, Submission.created_at, Submission.committed_at)
        .join(Lab, Lab.id == Submission.lab_id)
        .where(Lab.code == lab, Submission.batch_id == batch_id)
    )
    found = session.execute(asked.with_for_update(of=Submission) if locked else asked).first()
    return None if found is None else SubmissionRow(*found)


def keep_submission(
    session: Session, lab: str, batch_id: str, manifest: dict[str, Any], sizes: dict[str, int], by: str
) -> None:
    """Put what a lab announces on record, in place of what it had announced under the same id."""
    new = {"manifest": manifest, "sizes": sizes, "created_by": by}
    row = upsert(Submission).values(
        lab_id=select(Lab.id).where(Lab.code == lab).scalar_subquery(), batch_id=batch_id, **new
    )
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Submission.lab_id, Submission.batch_id],
            set_={**new, "created_at": func.now(), "committed_at": None},
        )
    )


def set_committed(session: Session, lab: str, batch_id: str) -> None:
    """Note that the manifest of an announced batch lies in the store."""
    of_lab = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    session.execute(
        update(Submission)
        .where(Submission.lab_id == of_lab, Submission.batch_id == batch_id)
        .values(committed_at=func.now())
    )


def forget_old_submissions(session: Session, lab: str, days: int) -> None:
    """Drop what a lab announced so long ago; its manifest was committed, or never will be."""
    of_lab = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    old = Submission.created_at < func.now() - func.make_interval(0, 0, 0, days)
    session.execute(delete(Submission).where(Submission.lab_id == of_lab, old))


def listed_batches(session: Session, lab: str, most: int, before: int | None) -> list[ListedBatch]:
    """The lab's batches, those received last first, from the one after `before` on."""
    return read_rows(
        session,
        ListedBatch,
        "select id as batch_key, batch_code as batch_id, state, received_at, closed_at, voided_at from batch"
        " where lab_id = (select id from lab where code = :lab)"
        " and id < coalesce(cast(:before as integer), 2147483647) order by id desc limit :most",
        lab=lab,
        before=before,
        most=most,
    )


def batch_row(session: Session, lab: str, batch_id: str) -> BatchRow | None:
    """The batch that the lab calls so; `None` where it is not registered."""
    found = read_rows(
        session,
        BatchRow,
        "select b.id as batch_key, state, received_at, closed_at, voided_at, void_why, problems,"
        " (select count(*) from field f join slide s on s.id = f.slide_id where s.batch_id = b.id)::integer as fields"
        " from batch b where lab_id = (select id from lab where code = :lab) and batch_code = :batch_id",
        lab=lab,
        batch_id=batch_id,
    )
    return found[0] if found else None


def slides_by_state(session: Session, batch_key: int) -> dict[str, int]:
    """How many slides of the batch are in which state."""
    found = session.execute(
        text(
            "select coalesce(now.state, 'queued'), count(*)::integer from slide"
            " left join reporting.latest_analysis now on now.slide_key = slide.id"
            " where slide.batch_id = :key group by 1 order by 1"
        ),
        {"key": batch_key},
    )
    return dict(found.all())


def slides_in_trouble(session: Session, batch_key: int, most: int) -> list[SlideRow]:
    """The first slides of the batch that are quarantined, or wait after a failure."""
    return read_rows(
        session,
        SlideRow,
        "select slide_code as slide_id, now.state, reason, coalesce(detail, '') as detail from slide"
        " join reporting.latest_analysis now on now.slide_key = slide.id"
        " where slide.batch_id = :key and reason is not null and now.state <> 'done'"
        " order by slide.position limit :most",
        key=batch_key,
        most=most,
    )


def event_rows(session: Session, batch_key: int, after: int, most: int) -> list[EventRow]:
    """What happened to the batch after the event of that number, of what a lab is told, in order."""
    return read_rows(
        session,
        EventRow,
        f"select id as event_id, at, kind, detail from audit_event where batch_id = :key and id > :after"
        f" and kind = any(:kinds) and at < clock_timestamp() - {_SETTLED} order by id limit :most",
        key=batch_key,
        after=after,
        kinds=list(SHOWN),
        most=most,
    )


def begin_request(session: Session, lab: str, key: str, fingerprint: str, minutes: int) -> bool:
    """Take an idempotency key for a request; false where it is taken. One that was never answered is free again."""
    of_lab = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    stale = (ApiRequest.status.is_(None)) & (
        ApiRequest.created_at < func.now() - func.make_interval(0, 0, 0, 0, 0, minutes)
    )
    session.execute(delete(ApiRequest).where(ApiRequest.lab_id == of_lab, ApiRequest.key == key, stale))
    new = upsert(ApiRequest).values(lab_id=of_lab, key=key, fingerprint=fingerprint)
    taken = new.on_conflict_do_nothing(index_elements=[ApiRequest.lab_id, ApiRequest.key]).returning(ApiRequest.key)
    return session.scalar(taken) is not None


def request_row(session: Session, lab: str, key: str) -> RequestRow | None:
    """The request that was made under this key."""
    found = session.execute(
        select(ApiRequest.fingerprint, ApiRequest.status, ApiRequest.answer)
        .join(Lab, Lab.id == ApiRequest.lab_id)
        .where(Lab.code == lab, ApiRequest.key == key)
    ).first()
    return None if found is None else RequestRow(*found)


def end_request(session: Session, lab: str, key: str, status: int | None, answer: dict[str, Any] | None) -> None:
    """Keep the answer of a request; without a status the key is free again."""
    of_lab = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    mine = (ApiRequest.lab_id == of_lab) & (ApiRequest.key == key)
    if status is None:
        session.execute(delete(ApiRequest).where(mine))
    else:
        session.execute(update(ApiRequest).where(mine).values(status=status, answer=answer))


def forget_old_requests(session: Session, lab: str, hours: int) -> None:
    """Drop the lab's keys that are older."""
    of_lab = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    old = ApiRequest.created_at < func.now() - func.make_interval(0, 0, 0, 0, hours)
    session.execute(delete(ApiRequest).where(ApiRequest.lab_id == of_lab, old))


def key_of_batch(session: Session, lab: str, batch_id: str) -> int | None:
    """The number of the batch that the lab calls so."""
    return session.scalar(select(Batch.id).join(Batch.lab).where(Lab.code == lab, Batch.batch_id == batch_id))
