"""Versions of answers (ETag) and the places in a list (cursors)."""

import base64
import binascii
import hashlib
from typing import Annotated, Final

from fastapi import Header, Path, Response
from pydantic import BaseModel

from services.errors import PermanentError
from services.intake.manifest import ID_PATTERN

BatchId = Annotated[
    str, Path(pattern=ID_PATTERN, description="batch_id of the manifest.", examples=["night-2026-11-23"])
]
IfNoneMatch = Annotated[str | None, Header(description="ETag of what the caller has: 304 while it is the same.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="A new one for each change, the same when it is sent again: the change is made once (24 hours).",
    ),
]
_CURSOR: Final = "b"


class BadCursor(PermanentError):
    """A cursor that no list has given."""

    reason = "bad_cursor"


def etag_of(content: bytes) -> str:
    """A strong ETag of a content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def fits(etag: str, asked: str | None) -> bool:
    """Whether the caller has this version already."""
    return asked is not None and (asked.strip() == "*" or etag in [part.strip() for part in asked.split(",")])


def versioned(document: BaseModel, asked: str | None, status: int = 200) -> Response:
    """The document with its ETag, or 304 where the caller has it."""
    content = document.model_dump_json().encode()
    return versioned_bytes(content, etag_of(content), asked, status)


def versioned_bytes(content: bytes, etag: str, asked: str | None, status: int = 200) -> Response:
    """JSON with its ETag, or 304 where the caller has it."""
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if fits(etag, asked):
        return Response(status_code=304, headers=headers)
    return Response(content, status, headers, media_type="application/json")


def cursor_of(batch_key: int | None) -> str | None:
    """The cursor of the page after this batch."""
    if batch_key is None:
        return None
    return base64.urlsafe_b64encode(f"{_CURSOR}{batch_key}".encode()).decode().rstrip("=")


def batch_of_cursor(cursor: str | None) -> int | None:
    """The batch after which the page begins; `None` of the first page.

    Raises:
        BadCursor: no list has given this one.
    """
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        number = int(text.removeprefix(_CURSOR))
    except (binascii.Error, ValueError) as error:
        raise BadCursor("this is no cursor of ours: begin the list again without one") from error
    if not text.startswith(_CURSOR) or not 0 < number < 2**31:
        raise BadCursor("this is no cursor of ours: begin the list again without one")
    return number
