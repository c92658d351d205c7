"""Uploads a delivery as a LIMS does: every field, then the manifest. If interrupted, it resumes."""

import hashlib
import json
import mimetypes
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from services.database.session import transaction
from services.dispatch import BrokerUnavailable, Publisher
from services.errors import PermanentError, TransientError
from services.intake.folder import Advance, Delivery, SourceFile
from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected
from services.intake.queries import batch_with_content
from services.intake.registration import Outcome
from services.intake.validation import MAX_MANIFEST_BYTES, parse_manifest
from services.keys import field_key, manifest_key, notice_key, upload_prefix
from services.storage import ObjectInfo, ObjectMissing, ObjectStore, StoreUnavailable

_PARALLEL: Final = 4


class BatchExists(PermanentError):
    """Another batch with this id was uploaded before; it is not changed."""

    reason = "batch_exists"


class ChangedWhileUploading(TransientError):
    """A file changed after its checksum was taken."""

    reason = "changed_while_uploading"


class UploadBroken(TransientError):
    """The store became unreachable during the upload; rerun to resume."""

    reason = "upload_broken"


@dataclass(frozen=True, slots=True)
class Delivered:
    """A batch whose upload is complete.

    `contents`: the service registers or rejects it under one of these checksums. `unannounced`: why no worker was told
    of it, if none was; then the sweep finds it.
    """

    lab: str
    batch_id: str
    contents: tuple[str, ...]
    unannounced: BrokerUnavailable | None


def deliver(
    store: ObjectStore, publisher: Publisher, delivery: Delivery, advance: Advance = lambda _: None
) -> Delivered:
    """Upload a delivery (see `upload`) and announce it.

    Raises:
        BatchExists, ChangedWhileUploading, UploadBroken: see `upload`.
    """
    data = upload(store, delivery, advance)
    manifest = delivery.manifest
    unannounced = None
    try:
        publisher.intake_batch(manifest.lab, manifest.batch_id)
    except BrokerUnavailable as error:
        unannounced = error
    # A manifest that the service rejects is known by its bytes; one that was rejected before has another checksum.
    contents = (manifest.fingerprint(), hashlib.sha256(data).hexdigest())
    return Delivered(manifest.lab, manifest.batch_id, contents, unannounced)


def taken_in(engine: Engine, delivered: Delivered) -> int | None:
    """The key of the batch, once the service has registered or rejected it; `None` before."""
    with transaction(engine) as session:
        return batch_with_content(session, delivered.lab, delivered.batch_id, delivered.contents)


def upload(store: ObjectStore, delivery: Delivery, advance: Advance = lambda _: None) -> bytes:
    """Upload what is not there yet, the manifest last. Returns the manifest's bytes as uploaded.

    `advance` is told the bytes of every field, also of those that were there.

    Raises:
        BatchExists: a batch of that lab and id with other content is there.
        ChangedWhileUploading: a file changed since its checksum was taken.
        UploadBroken: the store went away; no manifest was written.
    """
    manifest = delivery.manifest
    prefix = upload_prefix(manifest.lab, manifest.batch_id)
    data = manifest_bytes(manifest)
    try:
        refuse_to_overwrite(store, manifest)
        there = {found.key.removeprefix(prefix): found for found in store.list(prefix)}
        _upload_fields(store, manifest, delivery.files, there, advance)
        store.put(manifest_key(manifest.lab, manifest.batch_id), data, "application/json")
    except StoreUnavailable as error:
        raise UploadBroken(f"{error}; rerun the same command to resume") from error
    return data


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is written into the store."""
    return (json.dumps(manifest.as_json(), indent=1, ensure_ascii=False) + "\n").encode()


def refuse_to_overwrite(store: ObjectStore, manifest: Manifest) -> None:
    """Fields of a batch that is being analysed must not change under it; a rejected batch may be corrected.

    Raises:
        BatchExists: a manifest of that lab and id with other content lies in the store.
    """
    key = manifest_key(manifest.lab, manifest.batch_id)
    try:
        before = store.get(key, max_bytes=MAX_MANIFEST_BYTES)
        there = parse_manifest(before, lab=manifest.lab, batch_id=manifest.batch_id)
    except (ObjectMissing, ManifestRejected):
        return
    rejected = notice_key(manifest.lab, manifest.batch_id, Outcome.REJECTED)
    if there.fingerprint() != manifest.fingerprint() and store.stat(rejected) is None:
        raise BatchExists(
            f"lab {manifest.lab} has a batch {manifest.batch_id} with other content; choose another id"
            " (`morphbatch submit`: with --batch)"
        )


def _upload_fields(
    store: ObjectStore,
    manifest: Manifest,
    files: tuple[SourceFile, ...],
    there: dict[str, ObjectInfo],
    advance: Advance,
) -> None:
    def send(file: SourceFile) -> None:
        found = there.get(file.key)
        if found is None or (found.size, found.etag) != (file.size, file.md5):
            kind = mimetypes.guess_type(file.key)[0] or "application/octet-stream"
            put = store.put_file(field_key(manifest.lab, manifest.batch_id, file.key), file.path, kind)
            # The ETag of an object that was sent in parts says nothing of its content; the worker checks the SHA-256.
            if put.size != file.size or ("-" not in put.etag and put.etag != file.md5):
                raise ChangedWhileUploading(f"{file.path} changed while it was uploaded; rerun the same command")
        advance(file.size)

    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        done, _ = wait([pool.submit(send, file) for file in files], return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C only the files on their way are finished
    for future in done:
        future.result()
