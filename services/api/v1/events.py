"""What happened to a batch: asked for, waited for (long poll), or sent as it happens (server-sent events)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from services.access.verifying import Caller, TokenRefused
from services.api.v1.answers import BatchId, versioned
from services.api.v1.limits import TooManyRequests
from services.api.v1.models import Event, Events
from services.api.v1.polling import POLL_S, changed
from services.api.v1.rooms import Rooms, UsedRooms
from services.api.v1.security import Reader
from services.lims.batches import events_after
from services.lims.queries import EventRow

router = APIRouter(tags=["events"])

_STREAM_S: Final = 600.0
_SILENCE_S: Final = 15.0
_STREAM: Final = "text/event-stream"
_LARGEST: Final = 2**31 - 1


@router.get(
    "/batches/{batch_id}/events",
    response_model=Events,
    responses={200: {"content": {_STREAM: {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request,
    rooms: UsedRooms,
    caller: Reader,
    batch_id: BatchId,
    after: Annotated[int, Query(ge=0, le=_LARGEST, description="Events after the one with this id.")] = 0,
    wait: Annotated[int, Query(ge=0, le=60, description="Wait so many seconds for the next event.")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=_LARGEST, description="As `after`, of a stream.")] = None,
) -> Response:
    """What happened to a batch, in order; an event comes 2 seconds after it happened.

    With `Accept: text/event-stream` it is a stream that ends after ten minutes: connect again, with `Last-Event-ID`.
    """
    start = after if last_event_id is None else last_event_id

    def ask() -> list[EventRow]:
        return events_after(rooms.engine, caller.lab, batch_id, start)

    if _STREAM in request.headers.get("accept", ""):
        await run_in_threadpool(ask)  # an unknown batch is told before the stream begins
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(request, rooms, caller, batch_id, start), media_type=_STREAM, headers=headers)
    found = await changed(request, rooms, caller, ask, bool, wait)
    return versioned(Events(events=[_event(row) for row in found]), None)


def _event(row: EventRow) -> Event:
    return Event(id=row.event_id, at=row.at, kind=row.kind, detail=row.detail)


async def _stream(request: Request, rooms: Rooms, caller: Caller, batch_id: str, after: int) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    end = loop.time() + _STREAM_S
    said = loop.time()
    try:
        with rooms.waiting.one(caller.token_id):
            yield "retry: 2000\n\n"
            while loop.time() < end:
                await run_in_threadpool(rooms.verifier.verify, request.state.token)
                for row in await run_in_threadpool(events_after, rooms.engine, caller.lab, batch_id, after):
                    after, said = row.event_id, loop.time()
                    data = json.dumps(_event(row).model_dump(mode="json"))
                    yield f"id: {row.event_id}\nevent: {row.kind}\ndata: {data}\n\n"
                if loop.time() - said > _SILENCE_S:
                    said = loop.time()
                    yield ": nothing new\n\n"
                await asyncio.sleep(POLL_S)
    except (TooManyRequests, TokenRefused) as error:  # the status has been sent
        yield f"event: refused\ndata: {json.dumps({'reason': error.reason, 'detail': str(error)})}\n\n"
