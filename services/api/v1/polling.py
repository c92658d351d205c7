"""Waits for a change: the database is asked once a second, and no thread is held meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from services.access.verifying import Caller
from services.api.v1.rooms import Rooms

POLL_S: Final = 1.0

_T = TypeVar("_T")


async def changed(
    request: Request,
    rooms: Rooms,
    caller: Caller,
    ask: Callable[[], _T],
    is_news: Callable[[_T], bool],
    seconds: float,
) -> _T:
    """What `ask` gives once it is news, or after so many seconds.

    Raises:
        TooManyRequests: too many of the caller's requests wait.
        TokenRefused: the token was revoked meanwhile.
    """
    found = await run_in_threadpool(ask)
    if is_news(found) or seconds <= 0:
        return found
    end = asyncio.get_running_loop().time() + seconds
    with rooms.waiting.one(caller.token_id):
        while (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(POLL_S, left))
            if await request.is_disconnected():
                break
            await run_in_threadpool(rooms.verifier.verify, request.state.token)
            found = await run_in_threadpool(ask)
            if is_news(found):
                break
    return found
