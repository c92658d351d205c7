"""Slides that wait, run or have ended, each with so many fields: rows only, no image."""

from datetime import UTC, date, datetime

from sqlalchemy import Engine, text

from services.database.models import Batch, Lab, ModelRelease
from services.database.session import transaction

_SLIDE = (
    "insert into slide (batch_id, position, slide_code, specimen, replicate, stain, um_per_px)"
    " values (:batch, 0, :code, 'S', 1, 'shorr', 0.1) returning id"
)
_FIELDS = (
    "insert into field (slide_id, position, key, sha256)"
    " select :slide, n, n::text, '0' from generate_series(1, :fields) n"
)
_ANALYSIS = (
    "insert into analysis (slide_id, release_id, state, queued_at, started_at, finished_at, timings, cells_classified)"
    " values (:slide, 'r1', :state, :queued_at, :started_at, :finished_at,"
    " jsonb_build_object('total', cast(:seconds as float8)), :cells)"
)


class Slides:
    """Of one lab, with a batch for the slides that are urgent and one for the others."""

    def __init__(self, engine: Engine, received_at: datetime) -> None:
        self._engine = engine
        self._batches = {}
        with transaction(engine) as session:
            session.merge(ModelRelease(id="r1", kind="untrained", active=True, document={}))
            lab = Lab(code="berlin", time_zone="Europe/Berlin")
            session.add(lab)
            session.flush()
            for urgent in (False, True):
                batch = Batch(lab_id=lab.id, batch_id=f"urgent-{urgent}", state="analysing", manifest_sha256="0")
                batch.manifest_etag, batch.urgent = "0", urgent
                batch.received_on, batch.received_at = date(2026, 11, 23), received_at
                session.add(batch)
                session.flush()
                self._batches[urgent] = batch.id
        self._number = 0

    def add(
        self,
        fields: int,
        *,
        state: str = "queued",
        queued_at: datetime | None = None,
        urgent: bool = False,
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
        seconds: float = 0,
        cells: int = 0,
    ) -> None:
        """A slide."""
        self._number += 1
        with transaction(self._engine) as session:
            slide = session.execute(
                text(_SLIDE), {"batch": self._batches[urgent], "code": str(self._number)}
            ).scalar_one()
            session.execute(text(_FIELDS), {"slide": slide, "fields": fields})
            session.execute(
                text(_ANALYSIS),
                {"slide": slide, "state": state, "queued_at": queued_at or datetime.now(UTC),
                 "started_at": started_at, "finished_at": finished_at, "seconds": seconds, "cells": cells},
            )  # fmt: skip
