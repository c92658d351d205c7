"""What is asked of uploads: which manifests are known, and what became of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services.database.audit import AuditKind
from services.database.models import AuditEvent, Batch, Lab
from services.database.states import BatchState


@dataclass(frozen=True, slots=True)
class KnownManifest:
    """A manifest that was registered, rejected or refused. `settled`: its batch ended long ago."""

    lab: str
    batch_id: str
    etag: str
    settled: bool


def known_manifests(session: Session, settled_before: datetime) -> list[KnownManifest]:
    """Every manifest that was read; a batch that was closed before `settled_before` is settled."""
    finished = Batch.state.not_in([BatchState.ANALYSING.value, BatchState.REJECTED.value])
    settled = finished & (func.coalesce(Batch.closed_at, Batch.received_at) < settled_before)
    registered = select(Lab.code, Batch.batch_id, Batch.manifest_etag, settled).join(Batch.lab)
    refused = (
        select(Lab.code, Batch.batch_id, AuditEvent.detail["etag"].astext, settled)
        .join(Batch, Batch.id == AuditEvent.batch_key)
        .join(Batch.lab)
        .where(AuditEvent.kind == AuditKind.MANIFEST_REFUSED.value)
    )
    return [KnownManifest(*row) for query in (registered, refused) for row in session.execute(query).all()]


@dataclass(frozen=True, slots=True)
class LabRow:
    """A lab, its time zone, its batches, whether it tests, when its slides are started, and since when it is paused."""

    lab: str
    time_zone: str
    batches: int
    tests: bool
    window_opens: time | None = None
    window_closes: time | None = None
    paused_at: datetime | None = None

    @property
    def window(self) -> tuple[time, time] | None:
        """When its slides are started; `None`: at any time."""
        if self.window_opens is None or self.window_closes is None:
            return None
        return self.window_opens, self.window_closes


def lab_rows(session: Session) -> list[LabRow]:
    """All labs by their code."""
    said = (
        Lab.code,
        Lab.time_zone,
        func.count(Batch.id),
        Lab.tests,
        Lab.window_opens,
        Lab.window_closes,
        Lab.paused_at,
    )
    counted = select(*said).outerjoin(Batch).group_by(Lab.id).order_by(Lab.code)
    return [LabRow(*row) for row in session.execute(counted)]


def is_time_zone(session: Session, name: str) -> bool:
    """Whether Postgres, which counts the days, knows a zone by that name, spelled so."""
    known = text("select exists (select from pg_timezone_names where name = :name)")
    return bool(session.execute(known, {"name": name}).scalar_one())


def zone_of(session: Session, lab: str) -> str:
    """The lab's time zone; the lab is put on record where it is new, and its row is locked."""
    session.execute(upsert(Lab).values(code=lab).on_conflict_do_nothing(index_elements=[Lab.code]))
    return session.scalars(select(Lab.time_zone).where(Lab.code == lab).with_for_update()).one()


def set_zone(session: Session, lab: str, time_zone: str) -> None:
    """Give the lab another time zone."""
    session.execute(update(Lab).where(Lab.code == lab).values(time_zone=time_zone))


def set_tests(session: Session, lab: str, tests: bool) -> bool:
    """Have the lab test, or no longer; whether that changed anything. It is put on record where it is new."""
    session.execute(upsert(Lab).values(code=lab).on_conflict_do_nothing(index_elements=[Lab.code]))
    changed = update(Lab).where(Lab.code == lab, Lab.tests != tests).values(tests=tests).returning(Lab.id)
    return session.scalar(changed) is not None


def window_of(session: Session, lab: str) -> tuple[time, time] | None:
    """When the lab's slides are started; the lab is put on record where it is new, and its row is locked."""
    zone_of(session, lab)
    opens, closes = session.execute(select(Lab.window_opens, Lab.window_closes).where(Lab.code == lab)).one()
    return None if opens is None or closes is None else (opens, closes)


def set_window_of(session: Session, lab: str, window: tuple[time, time] | None) -> None:
    """Give the lab another window."""
    opens, closes = window or (None, None)
    session.execute(update(Lab).where(Lab.code == lab).values(window_opens=opens, window_closes=closes))


def was_refused(session: Session, batch_key: int, etag: str) -> bool:
    """Whether the manifest with this ETag was refused before, because its batch is registered with other content."""
    seen = select(AuditEvent.id).where(
        AuditEvent.batch_key == batch_key,
        AuditEvent.kind == AuditKind.MANIFEST_REFUSED.value,
        AuditEvent.detail["etag"].astext == etag,
    )
    return session.scalar(seen.limit(1)) is not None


def batch_with_content(session: Session, lab: str, batch_id: str, fingerprints: Sequence[str]) -> int | None:
    """The key of the batch, once one of these contents is registered or rejected; `None` before."""
    found = select(Batch.id).join(Batch.lab).where(Lab.code == lab, Batch.batch_id == batch_id)
    return session.scalar(found.where(Batch.manifest_sha256.in_(fingerprints)))
