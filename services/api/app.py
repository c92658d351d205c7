"""The HTTP service: takes the object store's bucket events, and answers health checks and Prometheus.

Below /v1 it serves the programs of labs (`services.api.v1`).

An event is a hint. It is answered 2xx only once the hint is at the broker, so that the store sends it again otherwise;
the sweep finds what is lost all the same.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import unquote_plus

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import ClientDisconnect

from services.api.database_metrics import DatabaseMetrics
from services.api.v1.app import create_v1
from services.database.session import make_engine
from services.dispatch import BrokerUnavailable, Publisher, connect_publisher
from services.intake.validation import BadBatchName, check_names
from services.keys import batch_of_manifest
from services.log_context import write_as
from services.metrics import API, BUCKET_EVENTS
from services.settings import Settings, load_settings

logger = logging.getLogger(__name__)

_MAX_EVENT_BYTES: Final = 2**20
_MAX_HINTS: Final = 100
_BODY_TIMEOUT_S: Final = 10.0


class MalformedEvent(ValueError):
    """The body is not an S3 bucket event."""


def create_app(settings: Settings | None = None, publisher: Publisher | None = None) -> FastAPI:
    """The application; without arguments it reads the settings of the process and publishes to its broker."""
    used = settings or load_settings()
    hints = publisher or connect_publisher(used.broker_url)
    expected = f"Bearer {used.webhook_token.get_secret_value()}".encode()

    database = CollectorRegistry()
    database.register(DatabaseMetrics(make_engine(used.database_url)))

    @asynccontextmanager
    async def log_set_up(_: FastAPI) -> AsyncIterator[None]:
        if used.log_format == "json":  # else as uvicorn writes it
            logging.basicConfig(level=logging.INFO)
            for name in (None, "uvicorn", "uvicorn.access"):
                write_as(used.log_format, logging.getLogger(name).handlers)
        yield

    app = FastAPI(title="morphbatch", lifespan=log_set_up, docs_url=None, redoc_url=None, openapi_url=None)

    def require_token(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), expected):
            raise HTTPException(401, "wrong or missing bearer token", {"WWW-Authenticate": "Bearer"})

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(generate_latest(API) + generate_latest(database), media_type=CONTENT_TYPE_LATEST)

    @app.post("/events/object-created", dependencies=[Depends(_counted), Depends(require_token)])
    async def object_created(request: Request) -> dict[str, int]:
        try:
            announced = list(dict.fromkeys(announced_batches(await _limited_body(request))))
        except MalformedEvent as error:
            raise HTTPException(400, str(error)) from error
        batches = announced[:_MAX_HINTS]
        if len(announced) > len(batches):
            logger.warning("an event announces %d batches: the sweep registers the rest", len(announced))
        try:
            for lab, batch_id in batches:
                await run_in_threadpool(hints.intake_batch, lab, batch_id)
        except BrokerUnavailable as error:
            logger.warning("bucket event not passed on: %s", error)
            raise HTTPException(503, "the broker is down; send the event again later", {"Retry-After": "5"}) from error
        return {"batches": len(batches)}

    app.mount("/v1", create_v1(used, make_engine(used.database_url), hints))
    return app


async def _counted() -> AsyncIterator[None]:
    code = 200
    try:
        yield
    except HTTPException as refusal:
        code = refusal.status_code
        raise
    finally:
        BUCKET_EVENTS.labels(str(code)).inc()


def announced_batches(body: bytes) -> Iterator[tuple[str, str]]:
    """Lab and batch of every manifest that a bucket event (S3 event JSON) announces; other objects are passed over.

    Raises:
        MalformedEvent: the body is not such an event.
    """
    try:
        event: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent("the body is not JSON") from error
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise MalformedEvent("not an S3 bucket event: `Records` must be a list")
    for i, record in enumerate(records):
        try:
            key = record["s3"]["object"]["key"]
        except (TypeError, KeyError, IndexError) as error:
            raise MalformedEvent(f"not an S3 bucket event: Records[{i}].s3.object.key is missing") from error
        if not isinstance(key, str):
            raise MalformedEvent(f"not an S3 bucket event: Records[{i}].s3.object.key is not a string")
        batch = batch_of_manifest(unquote_plus(key))  # S3 encodes keys in events as a query string
        if batch is None:
            continue
        try:
            check_names(*batch)
        except BadBatchName:
            logger.warning("Records[%d] announces a batch whose name cannot be used; the sweep tells the lab", i)
        else:
            yield batch


async def _limited_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_EVENT_BYTES:
                    raise HTTPException(413, f"an event has at most {_MAX_EVENT_BYTES} bytes")
    except TimeoutError as error:
        logger.warning("the body of an event did not arrive within %.0f s", _BODY_TIMEOUT_S)
        raise HTTPException(408, "the body did not arrive in time", {"Connection": "close"}) from error
    except ClientDisconnect as error:
        logger.warning("the sender of an event disconnected after %d bytes of its body", len(body))
        raise HTTPException(400, "the body ended early") from error
    return bytes(body)
