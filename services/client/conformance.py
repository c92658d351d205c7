"""The checklist of docs/integration.md, run against an installation with the token of a lab.

It sends a batch of two white images, which has no cells and ends `insufficient`; its id begins with `lims-check`.
"""

import hashlib
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from services.errors import OutageError

_SIDE_PX: Final = 640
_PROBLEM: Final = "application/problem+json"
_POLL_S: Final = 30


class NotChecked(OutageError):
    """The installation does not answer."""

    reason = "not_checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist. `passed`: null where it does not apply to this installation."""

    name: str
    passed: bool | None
    seen: str


class _Unlike(Exception):
    """What is seen is not what the checklist wants."""


class Checklist:
    """Runs each check once, in order; a later one uses what earlier ones left."""

    def __init__(self, url: str, token: str, *, wait_s: float) -> None:
        base = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._api = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=90)
        self._nobody = httpx.Client(base_url=base, timeout=90)
        self._wait_s = wait_s
        self._batch_id = f"lims-check-{time.time_ns()}"
        self._files = {f"slide-1/field-{n}.png": _white_png(n) for n in (1, 2)}
        self._uploads: dict[str, dict[str, Any]] = {}

    def run(self) -> Iterator[Check]:
        """The checks, as they are made.

        Raises:
            NotChecked: the installation does not answer.
        """
        with self._api, self._nobody:
            for name, check in self._checks().items():
                try:
                    seen = check()
                except _Unlike as unlike:
                    yield Check(name, False, str(unlike))
                except (KeyError, TypeError, ValueError) as error:
                    yield Check(name, False, f"the answer has another form: {type(error).__name__}: {error}")
                except httpx.HTTPError as error:
                    raise NotChecked(f"{name}: {type(error).__name__}: {error}") from error
                else:
                    yield Check(name, True if seen is None else None, seen or "")

    def _checks(self) -> dict[str, Callable[[], str | None]]:
        return {
            "the document of the interface is served": self._document,
            "without a token: 401, as a problem document": self._no_token,
            "the token reads the lab's batches": self._list,
            "an unknown batch: 404 unknown_batch": self._unknown,
            "a batch that names no field is refused with each fault": self._faults,
            "a batch is announced, with a URL for each field": self._announce,
            "the same again is the same batch": self._announce_again,
            "a commit before the upload: 409 fields_missing": self._early,
            "an upload URL is good for its own field alone": self._other_field,
            "an upload URL is good for the announced size alone": self._other_size,
            "an upload URL is good for the announced bytes alone": self._other_bytes,
            "the fields are uploaded": self._upload,
            "the batch is committed, and again": self._commit,
            "other content under its id: 409 batch_exists": self._other_content,
            "its state is 304 while nothing changes": self._same_state,
            "it is taken in": self._taken_in,
            "it ends, with a report": self._ends,
        }

    def _document(self) -> None:
        version = self._wanted(self._nobody.get("/openapi.json"), 200)["openapi"]
        if not version.startswith("3.1"):
            raise _Unlike(f"OpenAPI {version}")

    def _no_token(self) -> None:
        answer = self._nobody.get("/batches")
        self._problem(answer, 401, "token_refused")
        if answer.headers.get("www-authenticate") != "Bearer":
            raise _Unlike("the answer has no WWW-Authenticate")

    def _list(self) -> None:
        page = self._wanted(self._api.get("/batches", params={"limit": 1}), 200)
        if page["next"] is not None:
            self._wanted(self._api.get("/batches", params={"limit": 1, "cursor": page["next"]}), 200)

    def _unknown(self) -> None:
        self._problem(self._api.get(f"/batches/{self._batch_id}"), 404, "unknown_batch")

    def _faults(self) -> None:
        answer = self._api.post("/batches", json={"batch_id": self._batch_id, "slides": []})
        if not self._problem(answer, 422, "manifest_rejected")["problems"][0]["path"]:
            raise _Unlike("a fault does not say where it is")

    def _announce(self) -> None:
        found = self._wanted(self._api.post("/batches", json=self._document_of(self._files)), 201)
        self._uploads = {upload["key"]: upload for upload in found["uploads"]}
        if set(self._uploads) != set(self._files):
            raise _Unlike("not every field has a URL")

    def _announce_again(self) -> None:
        self._wanted(self._api.post("/batches", json=self._document_of(self._files)), 200)

    def _early(self) -> None:
        self._problem(self._api.post(f"/batches/{self._batch_id}/commit"), 409, "fields_missing")

    def _other_field(self) -> None:
        first, second = self._announced()
        url = self._uploads[first]["url"].replace(first, second)
        self._refused(self._put(url, self._files[first], self._uploads[first]["headers"]))

    def _other_size(self) -> None:
        key, upload = next(iter(self._announced().items()))
        self._refused(self._put(upload["url"], self._files[key] + b"x", upload["headers"]))

    def _other_bytes(self) -> str | None:
        key, upload = next(iter(self._announced().items()))
        answer = self._put(upload["url"], bytes(reversed(self._files[key])), upload["headers"])
        if answer.status_code == 200:
            return "this object store does not compare checksums: the worker does"
        return None

    def _upload(self) -> None:
        for key, upload in self._announced().items():
            answer = self._put(upload["url"], self._files[key], upload["headers"])
            if answer.status_code != 200:
                raise _Unlike(f"the object store answers {answer.status_code}")

    def _commit(self) -> None:
        for _ in range(2):
            state = self._wanted(self._api.post(f"/batches/{self._batch_id}/commit"), 202)["state"]
            if state == "awaiting_fields":
                raise _Unlike(f"its state is {state}")

    def _other_content(self) -> None:
        fewer = dict(list(self._files.items())[:1])
        self._problem(self._api.post("/batches", json=self._document_of(fewer)), 409, "batch_exists")

    def _same_state(self) -> None:
        for _ in range(20):  # it may change between two questions
            etag = self._api.get(f"/batches/{self._batch_id}").headers["etag"]
            answer = self._api.get(f"/batches/{self._batch_id}", headers={"If-None-Match": etag})
            if answer.status_code == 304:
                return
        raise _Unlike(f"answered {answer.status_code}")

    def _taken_in(self) -> None:
        end = time.monotonic() + self._wait_s
        while time.monotonic() < end:
            asked = {"wait": min(_POLL_S, max(1, int(end - time.monotonic())))}
            found = self._wanted(self._api.get(f"/batches/{self._batch_id}/events", params=asked), 200)["events"]
            if any(event["kind"] == "batch_registered" for event in found):
                return
        raise _Unlike(f"not within {self._wait_s:.0f} s: are the workers running?")

    def _ends(self) -> None:
        end = time.monotonic() + self._wait_s
        state, etag = "", ""
        while state not in ("complete", "complete_with_errors"):
            left = end - time.monotonic()
            if left <= 0:
                raise _Unlike(f"not within {self._wait_s:.0f} s: its state is {state}")
            asked = {"wait": min(_POLL_S, max(1, int(left)))}
            answer = self._api.get(f"/batches/{self._batch_id}", params=asked, headers={"If-None-Match": etag})
            if answer.status_code != 304:
                state, etag = self._wanted(answer, 200)["state"], answer.headers["etag"]
        report = self._api.get(f"/batches/{self._batch_id}/report")
        if self._wanted(report, 200)["batch_id"] != self._batch_id:
            raise _Unlike("the report is of another batch")
        redirect = self._api.get(f"/batches/{self._batch_id}/files/report.json")
        if redirect.status_code != 307:
            raise _Unlike(f"a file is answered {redirect.status_code}")
        if httpx.get(redirect.headers["location"], timeout=90).content != report.content:
            raise _Unlike("the file has other bytes than the report")

    def _announced(self) -> dict[str, dict[str, Any]]:
        if not self._uploads:
            raise _Unlike("the batch was not announced")
        return self._uploads

    def _put(self, url: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        return httpx.put(url, content=content, headers=headers, timeout=90)

    def _refused(self, answer: httpx.Response) -> None:
        if answer.status_code not in (400, 403):
            raise _Unlike(f"the object store answers {answer.status_code}")

    def _wanted(self, answer: httpx.Response, status: int) -> Any:
        if answer.status_code != status:
            raise _Unlike(f"answered {answer.status_code}, wanted {status}: {answer.text[:200]}")
        return answer.json()

    def _problem(self, answer: httpx.Response, status: int, reason: str) -> Any:
        if answer.headers.get("content-type") != _PROBLEM:
            raise _Unlike(f"answered {answer.status_code} as {answer.headers.get('content-type')}")
        problem = self._wanted(answer, status)
        if problem["reason"] != reason:
            raise _Unlike(f"its reason is {problem['reason']}")
        return problem

    def _document_of(self, files: dict[str, bytes]) -> dict[str, Any]:
        fields = [
            {"key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for key, data in files.items()
        ]
        slide = {"slide_id": "slide-1", "specimen": "LIMS-CHECK", "replicate": 1, "stain": "unknown", "um_per_px": 0.1}
        return {"batch_id": self._batch_id, "slides": [{**slide, "fields": fields}]}


def _white_png(number: int) -> bytes:
    """A white image; `number` stands in its text, so that no two have the same bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff" * 3 * _SIDE_PX) * _SIDE_PX
    head = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 2, 0, 0, 0)
    text = f"Comment\0lims-check {time.time_ns()} {number}".encode()
    parts = (b"IHDR", head), (b"tEXt", text), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
