"""The interface `/v1` as typed calls. What may be sent again is, when the service is down or asks to wait."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from services.errors import OutageError, PermanentError

_ATTEMPTS: Final = 6
_LONGEST_PAUSE_S: Final = 30.0
_WAIT_S: Final = 30
_PART: Final = 2**20
_LATER: Final = frozenset({408, 429, 502, 503, 504})
_OF_STORES: Final = _LATER | {500}  # what S3 answers, and rclone, where there is too much at once


class Refused(PermanentError):
    """The service refuses the request. `code` is the reason that it gives, `problems` each fault of a batch."""

    reason = "api_refused"

    def __init__(self, status: int, code: str, detail: str, problems: list[dict[str, str]]) -> None:
        self.status = status
        self.code = code
        self.problems = problems
        shown = "".join(f"\n  {p['path'] or 'batch'}: {p['message']} [{p['reason']}]" for p in problems[:20])
        more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
        super().__init__(f"{detail} [{code}]{shown}{more}")


class Unreachable(OutageError):
    """The service or its object store does not answer, or is down, also after several attempts."""

    reason = "api_unreachable"


@dataclass(frozen=True, slots=True)
class Upload:
    """Where a field is PUT, and with which headers."""

    key: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Announced:
    """An announced batch. `committed`: it was before."""

    batch_id: str
    committed: bool
    uploads: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch at one moment; `version` changes with it."""

    batch_id: str
    state: str
    slides: Mapping[str, int]
    problems: tuple[Mapping[str, str], ...]
    document: Mapping[str, Any]
    version: str

    @property
    def has_ended(self) -> bool:
        """Its results, or why it has none, are there."""
        return self.state in ("complete", "complete_with_errors", "rejected", "cancelled")


class Client:
    """One lab's access to a service. May be shared by threads."""

    def __init__(self, url: str, token: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        """`url` is the address of the service, with or without `/v1`."""
        base = url.rstrip("/").removesuffix("/v1") + "/v1"
        timeout = httpx.Timeout(60.0 + _WAIT_S, connect=10.0)
        self._api = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)
        self._store = httpx.Client(timeout=httpx.Timeout(300.0, connect=10.0))  # never shown the token
        self._pause = pause

    def __enter__(self) -> Self:
        """Keep connections until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self._api.close()
        self._store.close()

    def announce(self, batch: Mapping[str, Any]) -> Announced:
        """Announce a batch: a manifest whose fields have a `size`.

        Raises:
            Refused: with every fault.
            Unreachable: the service is down.
        """
        found = self._ask("POST", "/batches", json=dict(batch)).json()
        uploads = tuple(Upload(u["key"], u["url"], u["headers"]) for u in found["uploads"])
        return Announced(found["batch_id"], found["committed"], uploads)

    def upload(self, upload: Upload, path: Path) -> None:
        """PUT a file where its announcement says.

        Raises:
            Refused: the store does not take it, as when it is another file than announced.
            Unreachable: the store is down.
            OSError: the file cannot be read.
        """
        size = str(path.stat().st_size)

        def put() -> httpx.Response:
            headers = {**upload.headers, "Content-Length": size}
            return self._store.put(upload.url, headers=headers, content=_parts(path))

        answer = self._again(put, f"upload of {upload.key}", _OF_STORES)
        if answer.status_code != 200:
            raise Refused(answer.status_code, "upload_refused", f"the object store does not take {upload.key}", [])

    def commit(self, batch_id: str) -> BatchState:
        """Have the batch analysed.

        Raises:
            Refused: fields are missing, or it was not announced.
            Unreachable: the service is down.
        """
        return _state(self._ask("POST", f"/batches/{batch_id}/commit"))

    def batches(self) -> Iterator[Mapping[str, Any]]:
        """The lab's batches, those received last first, page by page as they are read."""
        cursor: str | None = None
        while True:
            page = self._ask("GET", "/batches", params={"cursor": cursor} if cursor else {}).json()
            yield from page["batches"]
            cursor = page["next"]
            if cursor is None:
                return

    def state(self, batch_id: str) -> BatchState:
        """The batch at this moment.

        Raises:
            Refused: there is none.
            Unreachable: the service is down.
        """
        return _state(self._ask("GET", f"/batches/{batch_id}"))

    def follow(self, batch_id: str) -> Iterator[BatchState]:
        """The batch now and at each change, until it has ended."""
        state = self.state(batch_id)
        yield state
        while not state.has_ended:
            answer = self._ask(
                "GET", f"/batches/{batch_id}", params={"wait": _WAIT_S}, headers={"If-None-Match": state.version}
            )
            if answer.status_code != 304:
                state = _state(answer)
                yield state

    def events(self, batch_id: str, after: int = 0, wait: int = 0) -> list[Mapping[str, Any]]:
        """What happened to the batch after that event; `wait` so many seconds for one."""
        params = {"after": after, "wait": wait}
        found: list[Mapping[str, Any]] = self._ask("GET", f"/batches/{batch_id}/events", params=params).json()["events"]
        return found

    def report(self, batch_id: str) -> Mapping[str, Any]:
        """The report of a batch that has ended."""
        found: Mapping[str, Any] = self._ask("GET", f"/batches/{batch_id}/report").json()
        return found

    def files(self, batch_id: str) -> list[str]:
        """The names of the files of its results."""
        return [file["name"] for file in self._ask("GET", f"/batches/{batch_id}/files").json()["files"]]

    def download(self, batch_id: str, name: str, to: Path) -> None:
        """Save a file of the results, which is there whole or not at all.

        Raises:
            Refused: there is no such file.
            Unreachable: the service or its store is down.
            OSError: it cannot be written.
        """
        place = self._ask("GET", f"/batches/{batch_id}/files/{name}").headers["location"]
        answer = self._again(lambda: self._store.get(place), f"download of {name}", _OF_STORES)
        if answer.status_code != 200:
            raise Refused(answer.status_code, "download_refused", f"the object store does not give {name}", [])
        part = to.with_name(to.name + ".part")
        part.write_bytes(answer.content)
        part.replace(to)

    def requeue(self, batch_id: str, slides: list[str], why: str) -> list[str]:
        """Analyse quarantined or the named slides again; those that are."""
        found: list[str] = self._change(batch_id, "requeue", {"slides": slides, "why": why})["slides"]
        return found

    def cancel(self, batch_id: str, why: str) -> int:
        """Start no slide of the batch any more; how many are thereby cancelled."""
        found: int = self._change(batch_id, "cancel", {"why": why})["slides"]
        return found

    def void(self, batch_id: str, why: str) -> None:
        """Take the batch out of every count."""
        self._change(batch_id, "void", {"why": why})

    def restore(self, batch_id: str, why: str) -> None:
        """Have a voided batch count again."""
        self._change(batch_id, "restore", {"why": why})

    def _change(self, batch_id: str, what: str, body: dict[str, Any]) -> Mapping[str, Any]:
        key = hashlib.sha256(f"{batch_id} {what} {body} {time.time_ns()}".encode()).hexdigest()
        headers = {"Idempotency-Key": key}  # one for the change, whatever becomes of each attempt
        found: Mapping[str, Any] = self._ask("POST", f"/batches/{batch_id}/{what}", json=body, headers=headers).json()
        return found

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self._again(lambda: self._api.request(method, path, **request), f"{method} {path}")
        if answer.status_code < 400:
            return answer
        try:
            problem = answer.json()
            code, detail, problems = problem["reason"], problem["detail"], problem.get("problems") or []
        except (ValueError, KeyError, TypeError) as error:
            message = f"{method} {path} is answered {answer.status_code} by something that is not morphbatch"
            raise Refused(answer.status_code, "not_morphbatch", message, []) from error
        raise Refused(answer.status_code, code, detail, problems)

    def _again(self, send: Callable[[], httpx.Response], what: str, later: frozenset[int] = _LATER) -> httpx.Response:
        """The answer, once there is one that is not "later"."""
        trouble, pause = "", 0.0
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(pause)
            pause = min(_LONGEST_PAUSE_S, 2.0**attempt)
            try:
                answer = send()
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise Refused(0, "bad_url", f"{what}: {error}", []) from error
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code not in later:
                return answer
            trouble = f"answered {answer.status_code}"
            asked = answer.headers.get("retry-after", "")
            pause = min(_LONGEST_PAUSE_S, float(asked)) if asked.isdigit() else pause
        raise Unreachable(f"{what}: {trouble}, after {_ATTEMPTS} attempts; send it again later")


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART):
            yield part


def _state(answer: httpx.Response) -> BatchState:
    found = answer.json()
    return BatchState(
        found["batch_id"], found["state"], found["slides"], tuple(found["problems"]), found, answer.headers["etag"]
    )
