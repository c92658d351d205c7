"""Every error as a problem document (RFC 9457), with the reason code that it has everywhere else."""

import logging
import math
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.api.v1.limits import TooManyRequests
from services.errors import ConfigurationError, MorphbatchError, OutageError, TransientError
from services.intake.problems import ManifestRejected
from services.lims.submissions import FieldsMissing

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_TYPE: Final = "urn:morphbatch:problem:"

STATUS: Final = {
    "bad_request": 400,
    "token_refused": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "scope_missing": 403,
    "not_found": 404,
    "unknown_batch": 404,
    "unknown_part": 404,
    "no_report": 404,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "batch_exists": 409,
    "fields_missing": 409,
    "idempotency_key_reused": 409,
    "request_under_way": 409,
    "nothing_to_requeue": 409,
    "not_cancellable": 409,
    "not_voidable": 409,
    "body_too_large": 413,
    "bad_cursor": 422,
    "manifest_rejected": 422,
    "bad_value": 422,
    "too_many_requests": 429,
    "configuration": 500,
}
"""The status of each reason. What is not here is 503 where the service waits for something, else 409."""


class Fault(BaseModel):
    """One thing that is wrong, of several."""

    path: str = Field(description="Where, such as `slides[2].fields[0].sha256`; empty: the whole.")
    reason: str = Field(description="Stable code, for programs.")
    message: str = Field(description="What is wrong, for people. It never repeats what was given.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:morphbatch:problem:unknown_batch",
                "title": "Not Found",
                "status": 404,
                "detail": "your lab has no batch night-1",
                "reason": "unknown_batch",
            }
        }
    )

    type: str = Field(description="`urn:morphbatch:problem:` and the reason.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong and what to do, for people.")
    reason: str = Field(description="Stable code, for programs.")
    problems: list[Fault] | None = Field(None, description="Each fault, where there can be several.")


def _response(
    status: int, reason: str, detail: str, faults: list[Fault] | None = None, headers: dict[str, str] | None = None
) -> Response:
    title = HTTPStatus(status).phrase
    problem = Problem(type=_TYPE + reason, title=title, status=status, detail=detail, reason=reason, problems=faults)
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status, headers=headers, media_type=MEDIA_TYPE)


def status_of(error: MorphbatchError) -> int:
    """The status with which an error is answered."""
    if isinstance(error, ConfigurationError):
        return 500
    return STATUS.get(error.reason, 503 if isinstance(error, TransientError) else 409)


def add_handlers(app: FastAPI) -> None:
    """Have `app` answer every error by a problem document."""
    app.add_exception_handler(MorphbatchError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _ours(request: Request, error: Exception) -> Response:
    error = cast(MorphbatchError, error)
    status = status_of(error)
    detail, headers = str(error), dict[str, str]()
    faults = None
    if isinstance(error, ManifestRejected | FieldsMissing):
        faults = [Fault(**problem.as_json()) for problem in error.problems]
        detail = detail.partition("\n")[0].rstrip(":")
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(max(1, math.ceil(error.seconds)))
    elif isinstance(error, OutageError):
        log.warning("%s %s: %s", request.method, request.url.path, error)
        detail, headers["Retry-After"] = "a part of the service is down; try again later", "10"
    elif isinstance(error, TransientError):
        headers["Retry-After"] = "1"
    elif status == 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
        detail = "the service is set up wrongly; its operator finds the reason in its log"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (408, 413):
        headers["Connection"] = "close"
    return _response(status, error.reason, detail, faults, headers)


async def _invalid(_: Request, error: Exception) -> Response:
    error = cast(RequestValidationError, error)
    faults = [
        Fault(path=_place(fault["loc"]), reason="bad_value", message=_said(fault)) for fault in error.errors()[:100]
    ]
    return _response(422, "bad_value", "the request does not have the form that /v1/openapi.json gives", faults)


def _place(place: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in place).encode("utf-8", "replace").decode()[:200]


def _said(fault: dict[str, Any]) -> str:
    said = str(fault["msg"]).removeprefix("Value error, ")
    return said[:1].lower() + said[1:]


async def _of_http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    if isinstance(error.__cause__, MorphbatchError):  # of the middleware, while FastAPI read the body
        return await _ours(request, error.__cause__)
    reason = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    detail = {404: "there is nothing at this address", 405: "this address does not take that method"}.get(
        error.status_code, str(error.detail)
    )
    return _response(error.status_code, reason, detail, headers=dict(error.headers or {}))


async def _gone(_: Request, error: Exception) -> Response:
    del error
    return _response(400, "bad_request", "the body ended early")
