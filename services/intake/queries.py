"""What is asked of uploads: which manifests are known, and what became of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
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
    finished = Batch.state.in_([BatchState.COMPLETE.value, BatchState.COMPLETE_WITH_ERRORS.value])
    settled = finished & (func.coalesce(Batch.closed_at, Batch.received_at) < settled_before)
    registered = select(Lab.code, Batch.batch_id, Batch.manifest_etag, settled).join(Batch.lab)
    refused = (
        select(Lab.code, Batch.batch_id, AuditEvent.detail["etag"].astext, settled)
        .join(Batch, Batch.id == AuditEvent.batch_key)
        .join(Batch.lab)
        .where(AuditEvent.kind == AuditKind.MANIFEST_REFUSED.value)
    )
    return [KnownManifest(*row) for query in (registered, refused) for row in session.execute(query).all()]


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
