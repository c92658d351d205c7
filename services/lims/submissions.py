"""A batch sent over HTTP: announced with its fields, uploaded by presigned URLs, committed.

Committing writes the manifest into the store as `services.intake.upload` does, and from there on nothing tells the two
ways apart.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine

from services.database.audit import AuditKind, record
from services.database.session import transaction
from services.dispatch import BrokerUnavailable, Publisher
from services.errors import PermanentError
from services.intake.checked import parse_checked
from services.intake.manifest import SCHEMA, Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.upload import manifest_bytes, refuse_to_overwrite
from services.intake.validation import read_json
from services.keys import field_key, manifest_key, upload_prefix
from services.lims.queries import (
    SubmissionRow,
    batch_row,
    forget_old_submissions,
    keep_submission,
    set_committed,
    submission_row,
)
from services.storage import ObjectStore

KEPT_DAYS: Final = 30
_MOST_PROBLEMS: Final = 500


class UnknownBatch(PermanentError):
    """The lab has neither announced nor sent a batch of this id."""

    reason = "unknown_batch"


class FieldsMissing(PermanentError):
    """Fields of the batch are not in the store yet, or have another size than announced."""

    reason = "fields_missing"

    def __init__(self, batch_id: str, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{len(problems)} field(s) of batch {batch_id} are not uploaded as announced; upload them and commit again"
        )


@dataclass(frozen=True, slots=True)
class AnnouncedField:
    """A field, and where it is uploaded: `object_key` is its key in the bucket."""

    key: str
    object_key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Announced:
    """A batch that was announced. `new`: not known before with this content."""

    batch_id: str
    manifest: Manifest
    fields: tuple[AnnouncedField, ...]
    new: bool
    committed_at: datetime | None


def announce_batch(
    engine: Engine, store: ObjectStore, lab: str, data: bytes, *, most_field_bytes: int, by: str
) -> Announced:
    """Put on record what the lab will send: a manifest, as JSON, whose fields have a `size` in bytes as well.

    The same again is the same batch. Other content replaces what was announced and is not committed yet.

    Raises:
        ManifestRejected: with every problem found.
        BatchExists: a batch of this id with other content is there.
        OutageError: the store or Postgres is down, or a large manifest cannot be checked now.
    """
    document = read_json(data)
    if not isinstance(document, dict):
        raise ManifestRejected([Problem("", "manifest_not_json", "must be a JSON object")])
    document.setdefault("schema", SCHEMA)
    document.setdefault("lab", lab)
    batch_id = document.get("batch_id")
    sizes, problems = _take_sizes(document, most_field_bytes)
    try:
        named = batch_id if isinstance(batch_id, str) else ""
        manifest = parse_checked(json.dumps(document).encode(), lab=lab, batch_id=named)
    except ManifestRejected as error:
        raise ManifestRejected([*error.problems, *problems][:_MOST_PROBLEMS]) from error
    if problems:
        raise ManifestRejected(problems[:_MOST_PROBLEMS])
    refuse_to_overwrite(store, manifest)
    with transaction(engine) as session:
        forget_old_submissions(session, lab, KEPT_DAYS)
        before = submission_row(session, lab, manifest.batch_id, locked=True)
        same = before is not None and (before.manifest, before.sizes) == (manifest.as_json(), sizes)
        if not same:
            keep_submission(session, lab, manifest.batch_id, manifest.as_json(), sizes, by)
    committed_at = before.committed_at if before is not None and same else None
    fields = tuple(_fields(manifest, sizes))
    return Announced(manifest.batch_id, manifest, fields, not same, committed_at)


def commit_batch(engine: Engine, store: ObjectStore, publisher: Publisher, lab: str, batch_id: str, *, by: str) -> bool:
    """Write the manifest of an announced batch whose fields are all there; whether it was not committed before.

    Raises:
        UnknownBatch: the lab has announced no batch of this id.
        FieldsMissing: not every field is there in its size.
        BatchExists: a batch of this id with other content came in another way meanwhile.
        OutageError: the store or Postgres is down; nothing was committed.
    """
    with transaction(engine) as session:
        row = submission_row(session, lab, batch_id, locked=True)
        if row is None:
            raise _unknown(session_has_batch=batch_row(session, lab, batch_id) is not None, batch_id=batch_id)
        manifest = _manifest(row)
        _require_fields(store, manifest, row.sizes)
        refuse_to_overwrite(store, manifest)
        first = row.committed_at is None
        if first:
            set_committed(session, lab, batch_id)
            record(session, AuditKind.BATCH_SUBMITTED, lab=lab, batch=batch_id, by=by, fields=manifest.field_count)
        # Before the commit: if that fails the manifest is there all the same, and the next attempt finds it.
        store.put(manifest_key(lab, batch_id), manifest_bytes(manifest), "application/json")
    try:
        publisher.intake_batch(lab, batch_id)
    except BrokerUnavailable:
        return first  # the sweep finds it
    return first


def _unknown(*, session_has_batch: bool, batch_id: str) -> UnknownBatch:
    if session_has_batch:
        return UnknownBatch(f"batch {batch_id} was not announced over HTTP: there is nothing to commit")
    return UnknownBatch(f"your lab has announced no batch {batch_id}")


def _manifest(row: SubmissionRow) -> Manifest:
    return Manifest.model_validate(row.manifest)


def _fields(manifest: Manifest, sizes: dict[str, int]) -> Iterator[AnnouncedField]:
    for slide in manifest.slides:
        for field in slide.fields:
            key = field_key(manifest.lab, manifest.batch_id, field.key)
            yield AnnouncedField(field.key, key, sizes[field.key], field.sha256)


def _require_fields(store: ObjectStore, manifest: Manifest, sizes: dict[str, int]) -> None:
    prefix = upload_prefix(manifest.lab, manifest.batch_id)
    there = {found.key.removeprefix(prefix): found.size for found in store.list(prefix)}
    problems: list[Problem] = []
    for i, slide in enumerate(manifest.slides):
        for j, field in enumerate(slide.fields):
            size = there.get(field.key)
            if size is None:
                problems.append(Problem(f"slides[{i}].fields[{j}]", "field_missing", "is not uploaded yet"))
            elif size != sizes[field.key]:
                message = f"has {size} bytes in the store, and {sizes[field.key]} were announced"
                problems.append(Problem(f"slides[{i}].fields[{j}]", "field_size_differs", message))
    if problems:
        raise FieldsMissing(manifest.batch_id, problems[:_MOST_PROBLEMS])


def _take_sizes(document: dict[str, Any], most_bytes: int) -> tuple[dict[str, int], list[Problem]]:
    """Take `size` out of every field; what is left is a manifest. Other faults are the manifest's check to find."""
    sizes: dict[str, int] = {}
    problems: list[Problem] = []
    for i, slide in enumerate(_listed(document.get("slides"))):
        for j, field in enumerate(_listed(slide.get("fields") if isinstance(slide, dict) else None)):
            if not isinstance(field, dict):
                continue
            path = f"slides[{i}].fields[{j}].size"
            size = field.pop("size", None)
            if size is None:
                problems.append(Problem(path, "manifest_missing_key", "is required: the file's size in bytes"))
            elif type(size) is not int or size < 1:
                problems.append(Problem(path, "manifest_bad_value", "must be the file's size in bytes"))
            elif size > most_bytes:
                problems.append(Problem(path, "field_too_large", f"at most {most_bytes} bytes are taken"))
            elif isinstance(field.get("key"), str):
                sizes[field["key"]] = size
    return sizes, problems


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
