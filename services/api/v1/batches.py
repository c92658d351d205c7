"""Batches: announce, commit, list, ask, and change."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services.api.v1.answers import (
    BatchId,
    IdempotencyKey,
    IfNoneMatch,
    batch_of_cursor,
    cursor_of,
    etag_of,
    fits,
    versioned,
)
from services.api.v1.document import body_of
from services.api.v1.models import (
    AnnouncedBatch,
    Batch,
    BatchPage,
    BatchState,
    Cancelled,
    NewBatch,
    Reason,
    Requeue,
    Requeued,
    Upload,
    Voided,
    VoidedNow,
    batch_state,
)
from services.api.v1.polling import changed
from services.api.v1.rooms import UsedRooms
from services.api.v1.security import Administrator, Reader, Uploader
from services.batches.cancelling import cancel_batch
from services.batches.requeue import run_again
from services.batches.voiding import restore_batch, void_batch
from services.lims.batches import batch_key, batch_now, page_of_batches
from services.lims.idempotency import answer_once
from services.lims.submissions import announce_batch, commit_batch

router = APIRouter(tags=["batches"])

UPLOAD_SECONDS: Final = 3600
MOST_LISTED: Final = 200


async def _body(request: Request) -> bytes:
    return await request.body()


@router.post(
    "/batches",
    status_code=201,
    response_model=AnnouncedBatch,
    responses={200: {"model": AnnouncedBatch, "description": "Known with this content: other URLs for it"}},
    openapi_extra=body_of(NewBatch),
)
def announce(rooms: UsedRooms, caller: Uploader, data: Annotated[bytes, Depends(_body)]) -> Response:
    """Announce a batch, and get a URL for each of its fields. The same again gives other URLs: nothing is doubled."""
    most = rooms.settings.max_field_bytes
    announced = announce_batch(rooms.engine, rooms.store, caller.lab, data, most_field_bytes=most, by=caller.name)
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=UPLOAD_SECONDS)
    uploads = []
    for field in announced.fields:
        signed = rooms.signer.put(field.object_key, size=field.size, sha256=field.sha256, seconds=UPLOAD_SECONDS)
        uploads.append(Upload(key=field.key, url=signed.url, headers=signed.headers))
    answer = AnnouncedBatch(
        batch_id=announced.batch_id,
        committed=announced.committed_at is not None,
        expires_at=expires_at,
        uploads=uploads,
    )
    status = 201 if announced.new else 200
    return Response(answer.model_dump_json(), status, {"Cache-Control": "no-store"}, media_type="application/json")


@router.post("/batches/{batch_id}/commit", status_code=202, response_model=BatchState)
def commit(rooms: UsedRooms, caller: Uploader, batch_id: BatchId) -> Response:
    """Write the manifest of a batch whose fields are all uploaded: the analysis begins. It may be sent again."""
    commit_batch(rooms.engine, rooms.store, rooms.publisher, caller.lab, batch_id, by=caller.name)
    return versioned(batch_state(batch_now(rooms.engine, caller.lab, batch_id)), None, 202)


@router.get("/batches", response_model=BatchPage)
def list_batches(
    rooms: UsedRooms,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Most batches of the page.")] = 50,
    cursor: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,40}$", description="`next` of the page before.")
    ] = None,
) -> Response:
    """List the lab's batches that were taken in, those received last first."""
    found, last = page_of_batches(rooms.engine, caller.lab, limit, batch_of_cursor(cursor))
    page = BatchPage(
        batches=[
            Batch(
                batch_id=row.batch_id,
                state=row.state,
                received_at=row.received_at,
                closed_at=row.closed_at,
                voided=None if row.voided_at is None else Voided(at=row.voided_at, why=None),
            )
            for row in found
        ],
        next=cursor_of(last),
    )
    return versioned(page, None)


@router.get(
    "/batches/{batch_id}", response_model=BatchState, responses={304: {"description": "It is as the caller knows it"}}
)
async def ask(
    request: Request,
    rooms: UsedRooms,
    caller: Reader,
    batch_id: BatchId,
    if_none_match: IfNoneMatch = None,
    wait: Annotated[
        int, Query(ge=0, le=60, description="With If-None-Match: wait so many seconds for a change, then 304.")
    ] = 0,
) -> Response:
    """The state of a batch. With `wait` and `If-None-Match` it is answered as soon as it changes (long poll)."""

    def now() -> BatchState:
        return batch_state(batch_now(rooms.engine, caller.lab, batch_id))

    def is_news(state: BatchState) -> bool:
        return not fits(etag_of(state.model_dump_json().encode()), if_none_match)

    state = await changed(request, rooms, caller, now, is_news, wait)
    return versioned(state, if_none_match)


@dataclass(frozen=True)
class _Change:
    """A change of one of the lab's batches, made once for each idempotency key."""

    request: Request
    rooms: UsedRooms
    caller: Administrator
    batch_id: BatchId
    idempotency_key: IdempotencyKey = None

    def once(self, asked: BaseModel, make: Callable[[int], BaseModel], status: int = 200) -> Response:
        """Answer what `make` gives, called with the number of the batch; or as before, where the key was used."""

        def answer() -> tuple[int, dict[str, Any]]:
            return status, make(batch_key(self.rooms.engine, self.caller.lab, self.batch_id)).model_dump(mode="json")

        what = hashlib.sha256(f"{self.request.url.path}\n{asked.model_dump_json()}".encode()).hexdigest()
        answered, document = answer_once(self.rooms.engine, self.caller.lab, self.idempotency_key, what, answer)
        return JSONResponse(document, answered)


_Asked = Annotated[_Change, Depends()]


@router.post("/batches/{batch_id}/requeue", status_code=202, response_model=Requeued)
def requeue(change: _Asked, asked: Requeue) -> Response:
    """Analyse quarantined slides again, or the named ones that have ended. Nothing is overwritten."""
    rooms = change.rooms

    def make(key: int) -> Requeued:
        done = run_again(rooms.engine, rooms.publisher, key, asked.slides, by=change.caller.name, why=asked.why)
        return Requeued(slides=list(done.slide_ids))

    return change.once(asked, make, 202)


@router.post("/batches/{batch_id}/cancel", response_model=Cancelled)
def cancel(change: _Asked, asked: Reason) -> Response:
    """Start no slide of the batch any more. Slides that run end, and their results count."""

    def make(key: int) -> Cancelled:
        return Cancelled(slides=cancel_batch(change.rooms.engine, key, by=change.caller.name, why=asked.why))

    return change.once(asked, make)


@router.post("/batches/{batch_id}/void", response_model=VoidedNow)
def void(change: _Asked, asked: Reason) -> Response:
    """Take a batch out of every count, such as one that was sent twice. Nothing is deleted."""

    def make(key: int) -> VoidedNow:
        void_batch(change.rooms.engine, key, by=change.caller.name, why=asked.why)
        return VoidedNow(batch_id=change.batch_id, voided=True)

    return change.once(asked, make)


@router.post("/batches/{batch_id}/restore", response_model=VoidedNow)
def restore(change: _Asked, asked: Reason) -> Response:
    """Have a voided batch count again."""

    def make(key: int) -> VoidedNow:
        restore_batch(change.rooms.engine, key, by=change.caller.name, why=asked.why)
        return VoidedNow(batch_id=change.batch_id, voided=False)

    return change.once(asked, make)
