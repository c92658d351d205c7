"""Results: the report as it was written, its slides and specimens, and its files."""

import json
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from services.access.verifying import Caller
from services.api.v1.answers import BatchId, IfNoneMatch, etag_of, fits, versioned, versioned_bytes
from services.api.v1.models import File, Files
from services.api.v1.rooms import Rooms, UsedRooms
from services.api.v1.security import Reader
from services.keys import REPORT_NAME
from services.lims.results import (
    file_key,
    file_names,
    note_reading,
    read_report,
    report_info,
    slide_of,
    specimen_of,
)

router = APIRouter(tags=["results"])

DOWNLOAD_SECONDS: Final = 300
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_SAME: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "It is as the caller knows it"}}


def _document(description: str, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "description": description, "example": example}
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}, **_SAME}


_REPORT: Final = _document(
    "`morphbatch.report/2`, as docs/report.schema.json describes it",
    {"schema": "morphbatch.report/2", "lab": "north-clinic", "batch_id": "night-2026-11-23", "state": "complete"},
)
_SLIDE: Final = _document("An entry of the report's `slides`", {"slide_id": "slide-01", "state": "done", "cells": 212})
_SPECIMEN: Final = _document("Its entries among the report's `specimens`", {"specimens": [{"specimen": "S-7F3A"}]})


@router.get("/batches/{batch_id}/report", response_class=Response, responses=_REPORT)
def report(rooms: UsedRooms, caller: Reader, batch_id: BatchId, if_none_match: IfNoneMatch = None) -> Response:
    """The report of a batch that has ended: the same bytes as `report.json` among its files."""
    etag = f'"{report_info(rooms.engine, rooms.store, caller.lab, batch_id).etag}"'
    if fits(etag, if_none_match):
        return versioned_bytes(b"", etag, if_none_match)
    stored = read_report(rooms.engine, rooms.store, caller.lab, batch_id)
    note_reading(rooms.engine, caller.lab, batch_id, REPORT_NAME, by=caller.name)
    return versioned_bytes(stored.content, f'"{stored.etag}"', None)


@router.get("/batches/{batch_id}/slides/{slide_id}", response_class=Response, responses=_SLIDE)
def slide(
    rooms: UsedRooms,
    caller: Reader,
    batch_id: BatchId,
    slide_id: Annotated[str, Path(pattern=_NAME, examples=["slide-01"])],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The result of one slide, as the report has it."""
    stored = read_report(rooms.engine, rooms.store, caller.lab, batch_id)
    return _part(rooms, caller, batch_id, f"slide {slide_id}", slide_of(stored, slide_id), if_none_match)


@router.get("/batches/{batch_id}/specimens/{specimen}", response_class=Response, responses=_SPECIMEN)
def specimen(
    rooms: UsedRooms,
    caller: Reader,
    batch_id: BatchId,
    specimen: Annotated[str, Path(pattern=_NAME, examples=["S-7F3A"])],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The results of one specimen over its replicates, one for each stain and release, as the report has them."""
    stored = read_report(rooms.engine, rooms.store, caller.lab, batch_id)
    return _part(rooms, caller, batch_id, f"specimen {specimen}", specimen_of(stored, specimen), if_none_match)


def _part(
    rooms: Rooms, caller: Caller, batch_id: str, what: str, document: dict[str, Any], asked: str | None
) -> Response:
    content = json.dumps(document, ensure_ascii=False).encode()
    note_reading(rooms.engine, caller.lab, batch_id, what, by=caller.name)
    return versioned_bytes(content, etag_of(content), asked)


@router.get("/batches/{batch_id}/files", response_model=Files, responses=_SAME)
def files(
    request: Request, rooms: UsedRooms, caller: Reader, batch_id: BatchId, if_none_match: IfNoneMatch = None
) -> Response:
    """The files of a batch's results."""
    stored = read_report(rooms.engine, rooms.store, caller.lab, batch_id)
    base = request.url.path.rstrip("/")
    found = [File(name=name, href=f"{base}/{quote(name)}") for name in file_names(stored)]
    return versioned(Files(files=found), if_none_match)


@router.get(
    "/batches/{batch_id}/files/{name:path}",
    status_code=307,
    response_class=RedirectResponse,
    responses={307: {"description": "To the file in the object store, for five minutes; follow it without the token"}},
)
def file(
    rooms: UsedRooms,
    caller: Reader,
    batch_id: BatchId,
    name: Annotated[str, Path(description="As the list of files names it.", examples=["slides.csv"])],
) -> Response:
    """A file of the results, also `rejected.json` and `refused.json` where there are any."""
    key = file_key(rooms.engine, rooms.store, caller.lab, batch_id, name)
    note_reading(rooms.engine, caller.lab, batch_id, name, by=caller.name)
    url = rooms.signer.get(key, seconds=DOWNLOAD_SECONDS)
    return RedirectResponse(url, 307, {"Cache-Control": "no-store"})
