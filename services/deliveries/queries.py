"""What deliveries ask the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services.database.models import Delivery, DeliveryTarget, Lab
from services.database.moves import begin
from services.database.queries import read_rows
from services.database.states import DeliveryMove


@dataclass(frozen=True, slots=True)
class TargetRow:
    """Where a lab's results are delivered to; its secret is left out."""

    target_id: int
    lab: str
    kind: str
    address: str
    ca_file: str | None
    certificate_file: str | None
    active: bool
    waiting: int
    stopped: int


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery that waits or is stopped."""

    delivery_id: int
    lab: str
    kind: str
    address: str
    batch_id: str
    revision: int
    file: str
    state: str
    attempts: int
    next_try_at: datetime
    reason: str | None
    answer: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this attempt may send, and all that it takes."""

    delivery_id: int
    token: str
    attempts: int
    age_s: float
    lab: str
    batch_id: str
    revision: int
    file: str
    sha256: str | None
    created_at: datetime
    kind: str
    address: str
    secret: str | None
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None


@dataclass(frozen=True, slots=True)
class DeliveriesNow:
    """How many deliveries wait and are stopped, and for how long the oldest has waited, seconds."""

    waiting: int
    stopped: int
    oldest_s: float


def active_targets(session: Session, batch_key: int) -> list[tuple[int, str]]:
    """Number and kind of each target that new reports of the batch's lab are delivered to."""
    found = session.execute(
        text(
            "select t.id, t.kind from delivery_target t join batch b on b.lab_id = t.lab_id"
            " where b.id = :key and t.active order by t.id"
        ),
        {"key": batch_key},
    )
    return [(row.id, row.kind) for row in found]


def insert_deliveries(session: Session, rows: Sequence[dict[str, object]]) -> int:
    """Those that are not there yet; how many they are."""
    new = begin(DeliveryMove.SEND, upsert(Delivery).on_conflict_do_nothing()).returning(Delivery.id)
    return len(session.scalars(new, list(rows)).all()) if rows else 0


def claim_next(session: Session, token: str, lease_s: int) -> Claimed | None:
    """The delivery that is due longest and is the first of its target that waits, so that none overtakes another."""
    found = read_rows(
        session,
        Claimed,
        "update delivery d set lease_token = :token, lease_until = now() + make_interval(secs => :lease),"
        " attempts = attempts + 1 from delivery_target t, batch b, lab l"
        " where t.id = d.target_id and b.id = d.batch_id and l.id = b.lab_id and d.id = ("
        "  select id from delivery w where state = 'waiting' and next_try_at <= now()"
        "  and coalesce(lease_until, now()) <= now() and not exists ("
        "   select from delivery e where e.target_id = w.target_id and e.state = 'waiting' and e.id < w.id)"
        "  order by next_try_at, id limit 1 for update skip locked)"
        " returning d.id as delivery_id, d.lease_token as token, d.attempts,"
        " extract(epoch from now() - d.created_at)::float8 as age_s, l.code as lab, b.batch_code as batch_id,"
        " d.revision, d.file, d.sha256, d.created_at, t.kind, t.address, t.secret, t.ca_file, t.certificate_file,"
        " t.key_file",
        token=token,
        lease=lease_s,
    )
    return found[0] if found else None


def put_off(session: Session, claimed: Claimed, delay_s: float, reason: str, answer: str) -> None:
    """Have it tried again later, unless another attempt has it by now."""
    session.execute(
        text(
            "update delivery set next_try_at = now() + make_interval(secs => :delay), lease_token = null,"
            " lease_until = null, reason = :reason, answer = :answer where id = :id and lease_token = :token"
        ),
        {"delay": delay_s, "reason": reason, "answer": answer, "id": claimed.delivery_id, "token": claimed.token},
    )


_OPEN = (
    "select d.id as delivery_id, l.code as lab, t.kind, t.address, b.batch_code as batch_id, d.revision, d.file,"
    " d.state, d.attempts, d.next_try_at, d.reason, d.answer, d.created_at"
    " from delivery d join delivery_target t on t.id = d.target_id join batch b on b.id = d.batch_id"
    " join lab l on l.id = b.lab_id"
)


def open_deliveries(session: Session, *, stopped_only: bool = False) -> list[DeliveryRow]:
    """Those that are stopped, and then those that wait, in the order in which they were made."""
    states = ["stopped"] if stopped_only else ["stopped", "waiting"]
    return read_rows(
        session, DeliveryRow, f"{_OPEN} where d.state = any(:states) order by d.state, d.id", states=states
    )


def superseded(session: Session, delivery_ids: Sequence[int]) -> list[DeliveryRow]:
    """Those of these deliveries whose target has, or is about to be sent, a later revision of the same."""
    return read_rows(
        session,
        DeliveryRow,
        f"{_OPEN} where d.id = any(:ids) and d.file <> 'report.json' and exists (select from delivery later"
        " where later.target_id = d.target_id and later.batch_id = d.batch_id and later.file = d.file"
        " and later.revision > d.revision and later.state in ('waiting', 'delivered')) order by d.id",
        ids=list(delivery_ids),
    )


def deliveries_now(session: Session) -> DeliveriesNow:
    """As they are at this moment."""
    [row] = read_rows(
        session,
        DeliveriesNow,
        "select count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'stopped') as"
        " stopped, coalesce(extract(epoch from now() - min(created_at) filter (where state = 'waiting')), 0)::float8"
        " as oldest_s from delivery where state in ('waiting', 'stopped')",
    )
    return row


def target_rows(session: Session) -> list[TargetRow]:
    """All targets, by lab, kind and address."""
    return read_rows(
        session,
        TargetRow,
        "select t.id as target_id, l.code as lab, t.kind, t.address, t.ca_file, t.certificate_file, t.active,"
        " count(*) filter (where d.state = 'waiting') as waiting,"
        " count(*) filter (where d.state = 'stopped') as stopped"
        " from delivery_target t join lab l on l.id = t.lab_id left join delivery d on d.target_id = t.id"
        " group by t.id, l.code order by l.code, t.kind, t.address",
    )


def put_target(session: Session, lab: str, kind: str, address: str, **values: str | None) -> None:
    """Set a target of a lab, which is put on record where it is new; one that is there takes the new values."""
    session.execute(upsert(Lab).values(code=lab).on_conflict_do_nothing(index_elements=[Lab.code]))
    lab_id = select(Lab.id).where(Lab.code == lab).scalar_subquery()
    new = upsert(DeliveryTarget).values(lab_id=lab_id, kind=kind, address=address, **values)
    session.execute(
        new.on_conflict_do_update(
            index_elements=[DeliveryTarget.lab_id, DeliveryTarget.kind, DeliveryTarget.address],
            set_={**values, "active": True},
        )
    )


def end_target(session: Session, lab: str, kind: str, address: str) -> bool:
    """Deliver nothing new to it; whether there was such a target. What waits for it goes on."""
    ended = (
        update(DeliveryTarget)
        .where(
            DeliveryTarget.lab_id == select(Lab.id).where(Lab.code == lab).scalar_subquery(),
            DeliveryTarget.kind == kind,
            DeliveryTarget.address == address,
            DeliveryTarget.active,
        )
        .values(active=False)
        .returning(DeliveryTarget.id)
    )
    return session.scalar(ended, execution_options={"synchronize_session": False}) is not None
