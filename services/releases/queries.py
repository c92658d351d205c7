"""What is asked of releases: which are on record, which is active, and what was analysed under them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.database.models import ModelRelease, Slide
from services.database.queries import read_rows
from services.documents import describe
from services.releases.schema import Release, ReleaseBroken, ReleaseKind


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release on record; `document` is its `release.json`."""

    release_id: str
    kind: ReleaseKind
    active: bool
    created_at: datetime
    document: dict[str, Any]

    @property
    def release(self) -> Release:
        """The document, read.

        Raises:
            ReleaseBroken: another version of morphbatch recorded it.
        """
        try:
            return Release.model_validate_json(json.dumps(self.document))
        except ValidationError as error:
            raise ReleaseBroken(f"the recorded document of release {self.release_id}: {describe(error)}") from error


@dataclass(frozen=True, slots=True)
class ResultsOfBatch:
    """Slides of a batch with a result under a release: the analyses that count, and the cells of each."""

    batch_key: int
    received_on: date
    release_id: str
    analyses: list[int]
    cells: list[int]


def release_rows(session: Session) -> list[ReleaseRow]:
    """Every release on record, newest first."""
    return _releases(session, select(ModelRelease).order_by(ModelRelease.created_at.desc()))


def release_row(session: Session, release_id: str) -> ReleaseRow | None:
    """The release on record under this id."""
    return next(iter(_releases(session, select(ModelRelease).where(ModelRelease.id == release_id))), None)


def active_release(session: Session) -> ReleaseRow | None:
    """The release under which new slides are analysed; `None` before the first."""
    return next(iter(_releases(session, select(ModelRelease).where(ModelRelease.active))), None)


def results_under_others(session: Session, release_id: str, since: date) -> list[ResultsOfBatch]:
    """The results under other releases of what was received on or after `since` (UTC), by day, batch and release.

    Those of slides that are being analysed again are left out.
    """
    return read_rows(
        session,
        ResultsOfBatch,
        "select b.id as batch_key, b.received_on, a.release_id,"
        " array_agg(a.analysis_id order by a.analysis_id) as analyses,"
        " array_agg(a.cells_classified order by a.analysis_id) as cells"
        " from reporting.current_analysis a join slide s on s.id = a.slide_key join batch b on b.id = s.batch_id"
        " where b.received_on >= :since and a.state in ('done', 'insufficient') and a.release_id <> :release"
        " and not exists (select from analysis o where o.slide_id = s.id and o.state in ('queued', 'running'))"
        " group by b.id, b.received_on, a.release_id order by b.received_on, b.id",
        since=since,
        release=release_id,
    )


def results_by_batch(session: Session, analyses: Sequence[int]) -> list[ResultsOfBatch]:
    """These analyses, all under one release."""
    return read_rows(
        session,
        ResultsOfBatch,
        "select b.id as batch_key, b.received_on, min(a.release_id) as release_id,"
        " array_agg(a.id order by a.id) as analyses, array_agg(a.cells_classified order by a.id) as cells"
        " from analysis a join slide s on s.id = a.slide_id join batch b on b.id = s.batch_id"
        " where a.id = any(:analyses) group by b.id order by b.id",
        analyses=list(analyses),
    )


def slides_by_batch(session: Session, slide_keys: Sequence[int]) -> dict[int, list[str]]:
    """The ids of these slides by the key of their batch."""
    slides: dict[int, list[str]] = defaultdict(list)
    named = select(Slide.batch_key, Slide.slide_id).where(Slide.id.in_(slide_keys)).order_by(Slide.slide_id)
    for batch_key, slide_id in session.execute(named):
        slides[batch_key].append(slide_id)
    return slides


def _releases(session: Session, query: Select[ModelRelease]) -> list[ReleaseRow]:
    return [
        ReleaseRow(row.id, ReleaseKind(row.kind), row.active, row.created_at, row.document)
        for row in session.scalars(query)
    ]
