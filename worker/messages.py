"""What a message from the broker may be: what our own publishers send, and nothing else.

Celery believes what lies in its queue: a header of another type ends the worker's main process, and that of the next
one, which finds the same message. So each is read here first (`worker.broker`), and only the parts described here go
on. One that does not fit is dropped, logged in one line without its content, and counted. Nothing is lost with it: the
database and the object store know what is to be done, and the sweeps publish it again.
"""

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import to_json

from services import metrics
from services.dispatch import (
    ANALYSE_SLIDE,
    CLOSE_BATCH,
    INTAKE_BATCH,
    MAKE_PARTITIONS,
    SEND_DELIVERIES,
    SWEEP_DATABASE,
    SWEEP_INCOMING,
)
from services.documents import describe
from services.intake.manifest import ID_PATTERN

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 2**10
"""Ours have 1.5 kB."""

_RowId = Annotated[int, Field(ge=1, lt=2**63)]
_Name = Annotated[str, Field(pattern=ID_PATTERN)]
ARGUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    ANALYSE_SLIDE: TypeAdapter(tuple[_RowId]),
    CLOSE_BATCH: TypeAdapter(tuple[_RowId]),
    INTAKE_BATCH: TypeAdapter(tuple[_Name, _Name]),
    SWEEP_INCOMING: TypeAdapter(tuple[()]),
    SWEEP_DATABASE: TypeAdapter(tuple[()]),
    SEND_DELIVERIES: TypeAdapter(tuple[()]),
    MAKE_PARTITIONS: TypeAdapter(tuple[()]),
}
"""Every task, and what it is called with."""


class Dropped(Exception):
    """What was read is no message of ours; `reason` is for the counter, the text for the log."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class _Part(BaseModel):
    """A part of a message. What it does not name is left out, so that nothing unknown reaches Celery."""

    model_config = ConfigDict(strict=True, extra="ignore", serialize_by_alias=True)


def _decode(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError("must be base64 text") from error


_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_LIMITS: Final = TypeAdapter(tuple[_Seconds | None, None])


def _without_limits(sent: Any) -> tuple[None, None]:
    """Celery writes the sender's time limit into what it publishes from a worker or beat; the worker's own counts."""
    _LIMITS.validate_python(sent)
    return (None, None)


Body = TypeVar("Body")


class _Envelope(_Part, Generic[Body]):
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    body: Annotated[
        Json[Body], BeforeValidator(_decode), PlainSerializer(lambda body: b64encode(to_json(body)).decode("ascii"))
    ]


class _Properties(_Part):
    body_encoding: Literal["base64"]
    delivery_tag: UUID


class _TaskHeaders(_Part):
    lang: Literal["py"]
    task: str
    id: UUID
    expires: AwareDatetime | None = None
    # We never set these: a message waits for nothing, and is tried once.
    eta: None = None
    retries: Literal[0] = 0
    timelimit: Annotated[tuple[None, None], BeforeValidator(_without_limits)] = (None, None)
    compression: None = None


class _ToQueue(_Part):
    exchange: Literal[""]
    routing_key: Literal["slides", "control"]


class _TaskProperties(_Properties):
    delivery_info: _ToQueue


class _NothingEmbedded(_Part):
    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _TaskMessage(_Envelope[tuple[list[Any], Annotated[dict[str, Any], Field(max_length=0)], _NothingEmbedded]]):
    """The message of a task, as Celery's protocol 2 has it."""

    headers: _TaskHeaders
    properties: _TaskProperties


class _BroadcastHeaders(_Part):
    clock: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    expires: float | None = None


class _ToAll(_Part):
    exchange: Literal["celery.pidbox"]
    routing_key: Literal[""]


class _BroadcastProperties(_Properties):
    delivery_info: _ToAll


class _ReplyTo(_Part):
    exchange: Literal["reply.celery.pidbox"]
    routing_key: UUID


class _Order(_Part):
    method: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    destination: list[str] | None = None
    reply_to: _ReplyTo | None = None
    ticket: str | None = None


class _BroadcastMessage(_Envelope[_Order]):
    """What is asked of all workers, or of those named."""

    headers: _BroadcastHeaders
    properties: _BroadcastProperties


_TASK: Final = TypeAdapter(_TaskMessage)
_BROADCAST: Final = TypeAdapter(_BroadcastMessage)
_UNACKNOWLEDGED: Final = TypeAdapter(tuple[_TaskMessage, Literal[""], Literal["slides", "control"]])

Model = TypeVar("Model")


def task_message(raw: bytes) -> bytes:
    """A message of a queue, of the parts described here.

    Raises:
        Dropped: it is no message of ours.
    """
    message = _read(_TASK, raw)
    arguments = ARGUMENTS.get(message.headers.task)
    if arguments is None:
        raise Dropped("unknown_task", "headers.task: must be a task of this version of morphbatch")
    try:
        arguments.validate_json(to_json(message.body[0]), strict=True)
    except ValidationError as error:
        raise Dropped("wrong_arguments", f"of {message.headers.task}: {describe(error, 'arguments')}") from error
    return _TASK.dump_json(message)


def broadcast_message(raw: bytes) -> bytes:
    """A message to all workers, of the parts described here.

    Raises:
        Dropped: it is no message of ours.
    """
    return _BROADCAST.dump_json(_read(_BROADCAST, raw))


def kept_message(raw: bytes) -> bytes:
    """What is kept of a message until it is acknowledged, as it is: the message and where to put it back.

    Raises:
        Dropped: it is nothing that was kept of ours.
    """
    _read(_UNACKNOWLEDGED, raw)
    return raw


def read_or_drop(read: Callable[[bytes], bytes], raw: bytes, place: str) -> bytes | None:
    """What `read` makes of a message that came from `place`; `None` where it was dropped."""
    try:
        return read(raw)
    except Dropped as fault:
        drop(place, fault.reason, f"a message of {len(raw)} bytes that is none of ours: {fault}")
        return None


def drop(place: str, reason: str, what: str) -> None:
    """Say and count that something was dropped from the broker."""
    metrics.MESSAGES_DROPPED.labels(place, reason).inc()
    log.error("dropped from %s on the broker: %s (nothing is lost: the sweeps publish what is due again)", place, what)


def _read(adapter: TypeAdapter[Model], raw: bytes) -> Model:
    if len(raw) > MAX_BYTES:
        raise Dropped("too_large", f"at most {MAX_BYTES} bytes are read")
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        raise Dropped("malformed", describe(error, "message")) from error
