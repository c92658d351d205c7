"""The results of a batch, read from where the service left them: `results/<lab>/<batch>/` in the object store."""

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from services.database.audit import AuditKind, record
from services.database.session import transaction
from services.errors import PermanentError
from services.keys import REPORT_NAME, notice_key, report_key, result_key
from services.lims.batches import batch_key
from services.storage import ObjectInfo, ObjectMissing, ObjectStore

_MOST_BYTES: Final = 2**30
_NOTICES: Final = ("rejected", "refused")


class NoReport(PermanentError):
    """The batch has no report at this moment."""

    reason = "no_report"


class UnknownPart(PermanentError):
    """The report has no such slide, specimen or file."""

    reason = "unknown_part"


@dataclass(frozen=True, slots=True)
class Stored:
    """The report as it lies in the store, and its version there."""

    content: bytes
    etag: str

    @property
    def document(self) -> dict[str, Any]:
        """It, parsed."""
        found: dict[str, Any] = json.loads(self.content)
        return found


def report_info(engine: Engine, store: ObjectStore, lab: str, batch_id: str) -> ObjectInfo:
    """Which version of the report lies in the store.

    Raises:
        UnknownBatch: the lab has no batch of this id.
        NoReport: it has no report: it is not closed, or is being closed again.
    """
    batch_key(engine, lab, batch_id)
    found = store.stat(report_key(lab, batch_id))
    if found is None:
        raise _no_report(batch_id)
    return found


def read_report(engine: Engine, store: ObjectStore, lab: str, batch_id: str) -> Stored:
    """The report of a batch.

    Raises:
        UnknownBatch, NoReport: see `report_info`.
    """
    info = report_info(engine, store, lab, batch_id)
    try:
        return Stored(store.get(info.key, max_bytes=_MOST_BYTES), info.etag)
    except ObjectMissing as error:
        raise _no_report(batch_id) from error


def slide_of(stored: Stored, slide_id: str) -> dict[str, Any]:
    """The slide of a report that is called so.

    Raises:
        UnknownPart: there is none.
    """
    found = [slide for slide in stored.document["slides"] if slide["slide_id"] == slide_id]
    if not found:
        raise UnknownPart(f"the report has no slide {slide_id}")
    slide: dict[str, Any] = found[0]
    return slide


def specimen_of(stored: Stored, specimen: str) -> dict[str, Any]:
    """The results of a specimen, one for each stain and release, as `{"specimens": [...]}`.

    Raises:
        UnknownPart: there is none.
    """
    found = [entry for entry in stored.document["specimens"] if entry["specimen"] == specimen]
    if not found:
        raise UnknownPart(f"the report has no result of specimen {specimen}")
    return {"specimens": found}


def file_names(stored: Stored) -> list[str]:
    """The files of a batch, as they are asked for by name."""
    document = stored.document
    return [REPORT_NAME, *document["files"], *(name for slide in document["slides"] for name in slide["files"])]


def file_key(engine: Engine, store: ObjectStore, lab: str, batch_id: str, name: str) -> str:
    """The key in the bucket of a file of a batch: one that its report names, or a notice on its manifest.

    Raises:
        UnknownBatch: the lab has no batch of this id.
        NoReport: it has no report, and no such notice.
        UnknownPart: its report names no such file.
    """
    for notice in _NOTICES:
        if name == f"{notice}.json":
            batch_key(engine, lab, batch_id)
            key = notice_key(lab, batch_id, notice)
            if store.stat(key) is None:
                raise UnknownPart(f"batch {batch_id} has no {name}")
            return key
    if name not in file_names(read_report(engine, store, lab, batch_id)):
        raise UnknownPart(f"the report of batch {batch_id} names no file {name}")
    return result_key(lab, batch_id, name)


def note_reading(engine: Engine, lab: str, batch_id: str, what: str, *, by: str) -> None:
    """Put on record who read results of a batch."""
    key = batch_key(engine, lab, batch_id)
    with transaction(engine) as session:
        record(session, AuditKind.RESULTS_READ, batch_key=key, by=by, file=what)


def _no_report(batch_id: str) -> NoReport:
    return NoReport(f"batch {batch_id} has no report yet: ask for its state")
