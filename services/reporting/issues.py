"""The issues of a batch's report: which number the next one has, why there is one, and where the one before is kept.

The audit holds what was issued, and the object store what can be read. They are apart where a closing was interrupted
between the two: then what stands in the store is issued under its number if nothing has changed since, and is kept as
a revision of its own if something has. So no number is left out, and none ever names two contents.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Final

from services.database.audit import AuditKind
from services.keys import REPORT_NAME, report_key, result_key, revision_key
from services.reporting.queries import EventRow
from services.reporting.report import Report
from services.storage import ObjectMissing, ObjectStore, ObjectTooLarge

log = logging.getLogger(__name__)

_MOST_BYTES: Final = 2**30
_MOST_NAMED: Final = 10
_OF_A_REPORT: Final = frozenset({"lab", "slides", "files"})
_NO_CONTENT: Final = ("revision", "issued_at", "replaces", "reason", "files", "notes")


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of a report. `replaces` is the one before; the first has none, and no `reason`."""

    revision: int
    issued_at: datetime
    replaces: int | None
    reason: str | None


def latest_issue(events: Sequence[EventRow]) -> Issue | None:
    """What was issued when the batch of these `events` was last closed; `None` before."""
    closed = [event for event in events if event.kind == AuditKind.BATCH_CLOSED]
    if not closed:
        return None
    last = closed[-1]
    revision = last.detail.get("revision")
    if revision is None:  # by a version that overwrote the reports before
        return Issue(len(closed), last.at, len(closed) - 1 or None, None)
    at = datetime.fromisoformat(last.detail["issued_at"])
    return Issue(revision, at, last.detail["replaces"], last.detail["reason"])


def why_again(events: Sequence[EventRow]) -> str | None:
    """What was done to the batch of these `events` since it was last closed, as a sentence; `None` of nothing."""
    latest_first = takewhile(lambda event: event.kind != AuditKind.BATCH_CLOSED, reversed(events))
    said = reversed([_sentence(event) for event in latest_first])
    return "; ".join(filter(None, said)) or None


def read_standing(store: ObjectStore, lab: str, batch_id: str) -> dict[str, Any] | None:
    """The report that stands in the store, as it was written; `None` where there is none."""
    return read_document(store, report_key(lab, batch_id))


def read_document(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """The report under this key, whatever its revision; `None` where there is none.

    What is no report of ours, or only a part of one, is written over: else its batch would stay open for ever.
    """
    try:
        document = json.loads(store.get(key, max_bytes=_MOST_BYTES))
    except ObjectMissing:
        return None
    except (ObjectTooLarge, ValueError):
        document = None
    if not isinstance(document, dict) or not document.keys() >= _OF_A_REPORT:
        log.warning("%s is no report, and is written over", key)
        return None
    return document


def next_issue(report: Report, last: Issue | None, standing: Mapping[str, Any] | None, reason: str | None) -> Issue:
    """The issue under which `report` goes out; that which stands in the store, if it says the same."""
    issued = 0 if last is None else last.revision
    if standing is not None:
        number = revision_of(standing, last)
        if "issued_at" in standing and content(standing) == content(json.loads(report.as_json())):
            at = datetime.fromisoformat(standing["issued_at"])
            return Issue(number, at, standing["replaces"], standing["reason"])
        issued = max(issued, number)
    now = datetime.now(UTC).replace(microsecond=0)
    return Issue(issued + 1, now, issued or None, (reason or "the batch was closed again") if issued else None)


def revision_of(standing: Mapping[str, Any], last: Issue | None) -> int:
    """Its number. A report of an earlier version has none: it is that of the last closing."""
    return int(standing.get("revision") or (1 if last is None else last.revision))


def content(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says: all but its issue and the names of its files."""
    said = {name: value for name, value in document.items() if name not in _NO_CONTENT}
    return {**said, "slides": [{**slide, "files": []} for slide in document["slides"]]}


def keep(store: ObjectStore, standing: Mapping[str, Any], revision: int) -> None:
    """Copy the results that stand to `revisions/<revision>/`, its report last: where that is, all of them are."""
    batch = standing["lab"], standing.get("batch_id") or standing["batch"]  # until report/2
    if store.stat(revision_key(*batch, revision, REPORT_NAME)) is not None:
        return  # by a closing that was interrupted after it
    of_slides = (name for slide in standing["slides"] for name in slide["files"])
    for name in (*standing["files"], *of_slides, REPORT_NAME):
        _copy(store, result_key(*batch, name), revision_key(*batch, revision, name))


def _copy(store: ObjectStore, key: str, to: str) -> None:
    try:
        store.copy(key, to)
    except ObjectMissing:
        return  # somebody has deleted it: there is nothing left to keep


def _sentence(event: EventRow) -> str | None:
    detail = event.detail
    by = f" by {detail['by']}" if detail.get("by") else ""
    why = f": {detail['why']}" if detail.get("why") else ""
    match event.kind:
        case AuditKind.SLIDES_REQUEUED:
            return f"{_named(detail['slides'])} sent to be analysed again{by}{why}"
        case AuditKind.SLIDES_FUSED_ANEW:
            release, slides = detail["release"], detail["slides"]
            return f"the fusion of release {release} applied to the stored logits of {slides} slides{by}"
        case AuditKind.BATCH_VOIDED:
            return f"batch voided{by}{why}"
        case AuditKind.BATCH_RESTORED:
            return f"batch counted again{by}{why}"
        case AuditKind.BATCH_CANCELLED:
            return f"batch cancelled{by}{why}"
    return None


def _named(slides: Iterable[str]) -> str:
    names = list(slides)
    rest = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED])
    return f"{'slide' if len(names) == 1 else 'slides'} {listed}{f' and {rest} more' if rest > 0 else ''}"
