"""The document of the interface (OpenAPI 3.1): what FastAPI makes of the routers, and what every endpoint has."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.api.v1.problems import MEDIA_TYPE, Problem

VERSION: Final = "1.0.0"
_SCHEMAS: Final = "#/components/schemas/"
_DESCRIPTION: Final = (
    "For the programs of labs: send batches, follow them, read results. Every request shows a token of the lab, as"
    " `Authorization: Bearer mbt_…`, and sees that lab alone. docs/integration.md shows the way of a batch."
)
_EVERYWHERE: Final = {
    "401": "No valid token",
    "403": "The token does not allow it",
    "422": "The request does not have the form described here",
    "429": "Too many requests: see Retry-After",
    "503": "A part of the service is down: see Retry-After",
}
_OF_A_BATCH: Final = {"404": "The lab has no such batch, or the batch no such part"}
_OF_A_CHANGE: Final = {
    "400": "The body is not JSON, or ended early",
    "408": "The body did not arrive in time",
    "409": "It does not fit the state of the batch, or another request",
    "413": "The body is too large",
}
_BODIES: dict[str, type[BaseModel]] = {}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What describes a body that the endpoint reads itself, since it is checked elsewhere."""
    _BODIES[model.__name__] = model
    schema = {"$ref": _SCHEMAS + model.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document_of(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


def _made(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="morphbatch", version=VERSION, openapi_version="3.1.0", description=_DESCRIPTION, routes=app.routes
    )
    document["servers"] = [{"url": "/v1"}]
    schemas = document["components"]["schemas"]
    models: list[type[BaseModel]] = [Problem, *_BODIES.values()]
    _, more = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMAS + "{model}")
    schemas.update(more["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            said = {**_EVERYWHERE, **(_OF_A_BATCH if "{" in path else {}), **(_OF_A_CHANGE if method == "post" else {})}
            operation["responses"].update({status: {"description": what, **problem} for status, what in said.items()})
    return document
