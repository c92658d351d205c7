"""What one caller may ask of one process: requests a second, requests that wait, and bytes of a body.

The counts are this process's own, in its memory. With several processes a token may make as many requests as all of
them allow together.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import PermanentError, TransientError

SUBMISSION_BYTES: Final = 8 * 2**20
"""Of a batch that is announced: 10,000 fields have 2 to 3 MiB."""

OTHER_BYTES: Final = 256 * 2**10
BODY_SECONDS: Final = 60.0
BURST_SECONDS: Final = 5.0
_KNOWN: Final = 10_000
_WAITING_EACH: Final = 10
_WAITING_ALL: Final = 500


class TooManyRequests(TransientError):
    """The caller has used up its requests for now. `seconds` until it has one again."""

    reason = "too_many_requests"

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        self.seconds = seconds
        super().__init__(message)


class BodyTooLarge(PermanentError):
    """The body of a request has more bytes than are taken."""

    reason = "body_too_large"


class BodyTooSlow(TransientError):
    """The body of a request does not arrive."""

    reason = "body_too_slow"


class Rates:
    """Requests a second of each caller, with a burst of what five seconds give."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = per_second * BURST_SECONDS
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller: requests left, and when
        self._lock = Lock()

    def take(self, caller: str, requests: float = 1.0) -> None:
        """Count a request of this caller.

        Raises:
            TooManyRequests: it has none left now.
        """
        now = time.monotonic()
        with self._lock:
            left, then = self._left.pop(caller, (self._most, now))
            left = min(self._most, left + (now - then) * self._per_second)
            allowed = left >= requests
            self._left[caller] = (left - requests if allowed else left, now)
            while len(self._left) > _KNOWN:
                self._left.popitem(last=False)
        if not allowed:
            seconds = (requests - left) / self._per_second
            raise TooManyRequests(f"at most {self._per_second:g} requests a second; try again later", seconds)


class Waiting:
    """Requests that wait for a change, of each caller and in all: each keeps a connection."""

    def __init__(self) -> None:
        self._now: dict[str, int] = {}

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count this request while the block runs. For the event loop alone.

        Raises:
            TooManyRequests: too many wait.
        """
        mine = self._now.get(caller, 0)
        if mine >= _WAITING_EACH or sum(self._now.values()) >= _WAITING_ALL:
            raise TooManyRequests(f"at most {_WAITING_EACH} requests of a token wait at once; end one first", 5.0)
        self._now[caller] = mine + 1
        try:
            yield
        finally:
            self._now[caller] -= 1
            if not self._now[caller]:
                del self._now[caller]


class BodyLimit:
    """ASGI middleware that ends a body which is too large or does not arrive, whoever reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes of the body as they are read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = SUBMISSION_BYTES if scope["path"].rstrip("/").endswith("/batches") else OTHER_BYTES
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        read, complete = 0, False

        async def counted() -> Message:
            nonlocal read, complete
            if complete:  # only that the caller has gone can come now
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise BodyTooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s") from error
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > most:
                raise BodyTooLarge(f"the body has more than the {most} bytes that are taken here")
            return message

        await self._app(scope, counted, send)
