"""The keys of every object in the bucket: made and read here, nowhere else.

incoming/<lab>/<batch>/manifest.json   the manifest, which the LIMS uploads last; its fields lie beside it
results/<lab>/<batch>/…                what the service leaves: report.json last, or a notice of what is wrong
results/<lab>/<batch>/revisions/<n>/…  the same of an earlier revision of the report
releases/<release>/…                   the files of a release; release.json last
"""

import re
import uuid
from typing import Final

MANIFEST_NAME: Final = "manifest.json"
REPORT_NAME: Final = "report.json"

MANIFEST_SUFFIX: Final = f"/{MANIFEST_NAME}"
"""With `INCOMING`, what a bucket's events are filtered by: how every manifest's key ends."""

INCOMING: Final = "incoming/"
"""The folders directly under it are the labs."""

RELEASES: Final = "releases/"

_RESULTS: Final = "results/"
_SLIDES: Final = "slides/"
_SPECIMENS: Final = "specimens/"
_REVISIONS: Final = "revisions/"
_MANIFEST_KEY: Final = re.compile(rf"{INCOMING}(?P<lab>[^/]+)/(?P<batch>[^/]+)/{re.escape(MANIFEST_NAME)}")

RESERVED_FOLDERS: Final = frozenset({INCOMING.rstrip("/"), _RESULTS.rstrip("/"), RELEASES.rstrip("/")})
"""No key inside a batch begins with one of these: it would look like a key of the bucket."""


def incoming_of(lab: str) -> str:
    """The folders directly under it are the lab's batches."""
    return f"{INCOMING}{lab}/"


def upload_prefix(lab: str, batch_id: str) -> str:
    """Below it lies what the LIMS uploads of a batch."""
    return f"{incoming_of(lab)}{batch_id}/"


def field_key(lab: str, batch_id: str, key: str) -> str:
    """A field of a batch; `key` is the one its manifest gives, relative to the batch."""
    return upload_prefix(lab, batch_id) + key


def manifest_key(lab: str, batch_id: str) -> str:
    """The manifest of a batch."""
    return upload_prefix(lab, batch_id) + MANIFEST_NAME


def batch_of_manifest(key: str) -> tuple[str, str] | None:
    """Lab and batch of a manifest's key, as they stand there, unchecked; `None` for any other key."""
    found = _MANIFEST_KEY.fullmatch(key)
    return None if found is None else (found["lab"], found["batch"])


def results_of(lab: str) -> str:
    """The folders directly under it are the batches of the lab that have results."""
    return f"{_RESULTS}{lab}/"


def results_prefix(lab: str, batch_id: str) -> str:
    """Below it lies what the service leaves of a batch."""
    return f"{results_of(lab)}{batch_id}/"


def result_key(lab: str, batch_id: str, name: str) -> str:
    """A file among the results of a batch; `name` as the report lists it."""
    return results_prefix(lab, batch_id) + name


def report_key(lab: str, batch_id: str) -> str:
    """The report of a batch. It is written last, so that it means: complete."""
    return result_key(lab, batch_id, REPORT_NAME)


def revisions_prefix(lab: str, batch_id: str) -> str:
    """Below it lie the earlier revisions of a batch's results."""
    return result_key(lab, batch_id, _REVISIONS)


def revision_key(lab: str, batch_id: str, revision: int, name: str) -> str:
    """A file of an earlier revision; `name` as its report lists it."""
    return f"{revisions_prefix(lab, batch_id)}{revision}/{name}"


def notice_key(lab: str, batch_id: str, outcome: str) -> str:
    """Where a lab is told why its manifest was not accepted: `rejected.json` or `refused.json`."""
    return result_key(lab, batch_id, f"{outcome}.json")


def slide_file(slide_id: str, name: str) -> str:
    """The name, among the results of a batch, of a file of one slide."""
    return f"{_SLIDES}{slide_id}/{name}"


def specimen_file(specimen: str, ending: str) -> str:
    """The name, among the results of a batch, of a file of one specimen."""
    return f"{_SPECIMENS}{specimen}{ending}"


def specimens_prefix(lab: str, batch_id: str) -> str:
    """Below it lie the files of every specimen of a batch."""
    return result_key(lab, batch_id, _SPECIMENS)


def slides_prefix(lab: str, batch_id: str) -> str:
    """Below it lie the files of every slide of a batch."""
    return result_key(lab, batch_id, _SLIDES)


def release_prefix(release_id: str) -> str:
    """Below it lie the files of a release."""
    return f"{RELEASES}{release_id}/"


def release_file_key(release_id: str, name: str) -> str:
    """A file of a release; `name` as its document lists it."""
    return release_prefix(release_id) + name


def probe_key() -> str:
    """A new key for an object that only proves that one can be written, read and deleted."""
    return f"{_RESULTS}.probe-{uuid.uuid4().hex}"
