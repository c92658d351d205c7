"""Turns a manifest in the object store into a batch with its slides, fields and queued analyses: once, whoever asks.

Everything of a batch is inserted in one transaction. The caller publishes the analyses after it; a message that is lost
then is sent again by the sweep, which asks the database.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services import metrics, tracing
from services.database.audit import AuditKind, record
from services.database.models import Analysis, Batch, FieldRow, Lab, Slide
from services.database.moves import begin, move
from services.database.queries import active_release_id
from services.database.session import transaction
from services.database.states import BatchMove, BatchState, SlideMove
from services.errors import OutageError
from services.intake.checked import parse_checked
from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.queries import was_refused
from services.intake.validation import MAX_MANIFEST_BYTES, check_names
from services.keys import manifest_key, notice_key
from services.stains import stain_code
from services.storage import ObjectInfo, ObjectMissing, ObjectStore, ObjectTooLarge

logger = logging.getLogger(__name__)


class NoActiveRelease(OutageError):
    """No release of the networks is active; the batch waits in the store until one is."""

    reason = "no_active_release"


class Outcome(StrEnum):
    """`unchanged`: known with this content. `refused`: known with other content, which is left as it is."""

    NEW = "new"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one manifest. `analysis_ids` are to be published; only a new batch has any."""

    lab: str
    batch_id: str
    outcome: Outcome
    batch_key: int
    analysis_ids: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()


def register_batch(engine: Engine, store: ObjectStore, lab: str, batch_id: str) -> Registered:
    """Register `incoming/<lab>/<batch_id>/manifest.json`. Safe to call at any time, by any number of processes.

    Raises:
        BadBatchName: the lab or batch cannot be called so; nothing was stored.
        ObjectMissing: there is no manifest (yet).
        NoActiveRelease: the manifest is good, but there are no networks; nothing was stored.
        OutageError: the object store or Postgres is down, or the manifest cannot be checked now; nothing was stored.
    """
    check_names(lab, batch_id)
    begun = time.time_ns()
    found = store.stat(manifest_key(lab, batch_id))
    if found is None:
        raise ObjectMissing(f"{manifest_key(lab, batch_id)}: there is no manifest yet; it is uploaded last")
    manifest, sha256, problems = _read(store, found, lab, batch_id)
    with transaction(engine) as session:
        if manifest is None:
            registered = _reject(session, lab, batch_id, found, sha256, problems)
        else:
            registered = _accept(session, manifest, found, sha256)
        # Before the commit: whichever of the two fails, the next attempt does both again.
        _tell_the_lab(store, registered)
    metrics.MANIFESTS.labels(registered.outcome).inc()
    if registered.outcome is Outcome.NEW:
        tracing.begin_batch(lab, batch_id, begun, slides=len(registered.analysis_ids))
    logger.info("lab %s batch %s: manifest %s", lab, batch_id, registered.outcome)
    return registered


def _read(
    store: ObjectStore, found: ObjectInfo, lab: str, batch_id: str
) -> tuple[Manifest | None, str, tuple[Problem, ...]]:
    """The manifest and its content's SHA-256, or `None`, the SHA-256 of its bytes and what is wrong."""
    try:
        data = store.get(found.key, max_bytes=MAX_MANIFEST_BYTES)
    except ObjectTooLarge:
        message = f"has {found.size} bytes; at most {MAX_MANIFEST_BYTES} are read: split the batch"
        stand_in = hashlib.sha256(f"{found.size} {found.etag}".encode()).hexdigest()
        return None, stand_in, (Problem("", "manifest_too_large", message),)
    try:
        manifest = parse_checked(data, lab=lab, batch_id=batch_id)
    except ManifestRejected as error:
        return None, hashlib.sha256(data).hexdigest(), error.problems
    return manifest, manifest.fingerprint(), ()


def _accept(session: Session, manifest: Manifest, found: ObjectInfo, fingerprint: str) -> Registered:
    lab, batch_id = manifest.lab, manifest.batch_id
    batch = _insert_batch(session, lab, batch_id, fingerprint, found.etag, BatchMove.REGISTER, ())
    if batch is None:
        batch = _locked_batch(session, lab, batch_id)
        if batch.state == BatchState.REJECTED:
            batch.manifest_sha256, batch.manifest_etag, batch.problems = fingerprint, found.etag, []
            batch.received_on = datetime.now(UTC).date()
            move(session, BatchMove.REGISTER, Batch.id == batch.id)  # its row is locked
        elif batch.manifest_sha256 == fingerprint:
            batch.manifest_etag = found.etag  # other bytes, same content: nothing new for the sweep
            return Registered(lab, batch_id, Outcome.UNCHANGED, batch.id)
        else:
            return _refuse(session, batch, lab, found, fingerprint, ())
    batch.urgent = manifest.urgent
    analysis_ids = _insert_slides(session, batch, manifest)
    detail = {"slides": len(manifest.slides), "fields": manifest.field_count, "manifest_sha256": fingerprint}
    record(session, AuditKind.BATCH_REGISTERED, batch_key=batch.id, urgent=manifest.urgent, **detail)
    return Registered(lab, batch_id, Outcome.NEW, batch.id, tuple(analysis_ids))


def _reject(
    session: Session, lab: str, batch_id: str, found: ObjectInfo, sha256: str, problems: tuple[Problem, ...]
) -> Registered:
    batch = _insert_batch(session, lab, batch_id, sha256, found.etag, BatchMove.REJECT, problems)
    if batch is None:
        batch = _locked_batch(session, lab, batch_id)
        if batch.state != BatchState.REJECTED:
            return _refuse(session, batch, lab, found, sha256, problems)
        batch.manifest_etag = found.etag
        if batch.manifest_sha256 == sha256:
            return Registered(lab, batch_id, Outcome.REJECTED, batch.id, problems=problems)
        batch.manifest_sha256, batch.closed_at = sha256, datetime.now(UTC)
        batch.problems = [p.as_json() for p in problems]
    detail = {"problems": len(problems), "reasons": sorted({p.reason for p in problems})}
    record(session, AuditKind.MANIFEST_REJECTED, batch_key=batch.id, **detail)
    return Registered(lab, batch_id, Outcome.REJECTED, batch.id, problems=problems)


def _refuse(
    session: Session, batch: Batch, lab: str, found: ObjectInfo, sha256: str, problems: tuple[Problem, ...]
) -> Registered:
    """Leave the batch as it is and note, once for each such manifest, that another one was given."""
    if not was_refused(session, batch.id, found.etag):
        detail = {"etag": found.etag, "manifest_sha256": sha256, "registered_sha256": batch.manifest_sha256}
        record(session, AuditKind.MANIFEST_REFUSED, batch_key=batch.id, **detail)
    message = "this batch is registered with other content; send the new content under a new batch_id"
    given = (Problem("batch_id", "manifest_other_content", message), *problems)
    return Registered(lab, batch.batch_id, Outcome.REFUSED, batch.id, problems=given)


def _insert_batch(
    session: Session,
    lab: str,
    batch_id: str,
    sha256: str,
    etag: str,
    step: BatchMove,
    problems: tuple[Problem, ...],
) -> Batch | None:
    """The new row, or `None` when the batch is there: a second registration waits here for the first to commit."""
    session.execute(upsert(Lab).values(code=lab).on_conflict_do_nothing(index_elements=[Lab.code]))
    now = datetime.now(UTC)
    row = upsert(Batch).values(
        lab_id=select(Lab.id).where(Lab.code == lab).scalar_subquery(),
        batch_id=batch_id,
        manifest_sha256=sha256,
        manifest_etag=etag,
        problems=[p.as_json() for p in problems],
        received_on=now.date(),
        closed_at=now if step is BatchMove.REJECT else None,
    )
    new = begin(step, row.on_conflict_do_nothing(index_elements=[Batch.lab_id, Batch.batch_id]))
    return session.scalars(new.returning(Batch)).one_or_none()


def _locked_batch(session: Session, lab: str, batch_id: str) -> Batch:
    return session.scalars(
        select(Batch).join(Lab).where(Lab.code == lab, Batch.batch_id == batch_id).with_for_update(of=Batch)
    ).one()


def _insert_slides(session: Session, batch: Batch, manifest: Manifest) -> list[int]:
    release_id = active_release_id(session)
    if release_id is None:
        raise NoActiveRelease("no release of the networks is active; install one: morphbatch release install")
    session.execute(select(func.make_cell_partitions(batch.received_on, 1)))
    slide_rows: list[dict[str, Any]] = [
        {
            "batch_key": batch.id,
            "position": position,
            "slide_id": slide.slide_id,
            "specimen": slide.specimen,
            "replicate": slide.replicate,
            "stain": stain_code(slide.stain),
            "um_per_px": slide.um_per_px,
            "collected_at": slide.collected_at,
            "order_number": slide.order_number,
            "accession_number": slide.accession_number,
            "sample_type": slide.sample_type,
            "stain_lot": slide.stain_lot,
        }
        for position, slide in enumerate(manifest.slides)
    ]
    slide_keys = session.scalars(insert(Slide).returning(Slide.id, sort_by_parameter_order=True), slide_rows).all()
    field_rows: list[dict[str, Any]] = [
        {
            "slide_key": slide_key,
            "position": position,
            "key": field.key,
            "sha256": field.sha256,
            "kind": field.kind,
            "given_cells": None if field.cells is None else [{"box": list(cell.box)} for cell in field.cells],
        }
        for slide_key, slide in zip(slide_keys, manifest.slides, strict=True)
        for position, field in enumerate(slide.fields)
    ]
    session.execute(insert(FieldRow), field_rows)
    analysis_rows = [{"slide_key": slide_key, "release_id": release_id} for slide_key in slide_keys]
    new = begin(SlideMove.QUEUE, insert(Analysis)).returning(Analysis.id, sort_by_parameter_order=True)
    ids = session.scalars(new, analysis_rows)
    return list(ids.all())


def _tell_the_lab(store: ObjectStore, registered: Registered) -> None:
    """Leave rejected.json or refused.json beside the results, and take away the one that no longer holds."""
    for outcome in (Outcome.REJECTED, Outcome.REFUSED):
        key = notice_key(registered.lab, registered.batch_id, outcome)
        if registered.outcome is outcome:
            store.put(
                key, notice(registered.lab, registered.batch_id, outcome, registered.problems), "application/json"
            )
        elif registered.outcome is not Outcome.REFUSED:
            store.delete(key)


def notice(lab: str, batch_id: str, outcome: Outcome, problems: tuple[Problem, ...]) -> bytes:
    """The JSON file that tells a lab what is wrong with its manifest."""
    content = {
        "lab": lab,
        "batch_id": batch_id,
        "outcome": outcome,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "problems": [p.as_json() for p in problems],
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
