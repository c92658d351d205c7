"""Everything that a batch leaves in `results/<lab>/<batch>/`; report.json comes last, so that it means: complete.

Before another revision is written, the one that stands is copied to `revisions/<n>/`.
"""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from services.database.session import transaction
from services.database.states import BatchState
from services.errors import MorphbatchError
from services.fields import FieldLimits
from services.keys import (
    REPORT_NAME,
    report_key,
    result_key,
    revision_key,
    slide_file,
    slides_prefix,
    specimens_prefix,
)
from services.reporting.exports import geojson
from services.reporting.exports.cells_parquet import write_cells_parquet
from services.reporting.exports.tables_csv import write_slides_csv, write_specimens_csv
from services.reporting.issues import (
    keep,
    latest_issue,
    next_issue,
    read_document,
    read_standing,
    revision_of,
    why_again,
)
from services.reporting.messages.files import messages_of
from services.reporting.messages.results import specimen_results, withdrawn_results
from services.reporting.pictures.draw import SlidePictures
from services.reporting.pictures.heading import JPEG_QUALITY
from services.reporting.queries import BatchRow, batch_row, events, stream_cells
from services.reporting.reading import read_report
from services.reporting.report import SCHEMA, Report, SlideReport
from services.settings import load_settings
from services.storage import ObjectStore

log = logging.getLogger(__name__)


def write_batch_report(engine: Engine, store: ObjectStore, batch_key: int, state: BatchState | None = None) -> Report:
    """Write all files of the batch, and return its report.

    `state` is what the report states when the batch is about to be closed. The same rows give the same bytes, so that a
    second call changes nothing; other rows give another revision. One that was issued before is not written again. A
    picture that cannot be drawn becomes a line of the report's `notes`.

    Raises:
        OutageError: the database or the store failed; nothing is announced, call again later.
        NoSuchBatch: there is none.
    """
    with transaction(engine) as session:
        # One snapshot: shares, intervals and measures of a report belong together.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        report = read_report(session, batch_key, state)
        batch_now = batch_row(session, batch_key)
        done = events(session, batch_key)
    last, why = latest_issue(done), why_again(done)
    batch = report.lab, report.batch_id
    standing = read_standing(store, *batch)
    issue = next_issue(report, last, standing, why)
    if standing is not None:
        stands = revision_of(standing, last)
        if last is not None and issue.revision <= last.revision:
            log.info("batch %d: revision %d of its report holds as it is", batch_key, stands)
            return Report.model_validate(standing)
        if issue.revision != stands:
            keep(store, standing, stands)
    report = report.as_issued(issue.revision, issue.issued_at, issue.replaces, issue.reason)
    key = report_key(*batch)
    store.delete(key)  # of an earlier closing: while files change, nothing claims to be complete
    with TemporaryDirectory(prefix="morphbatch-report-") as folder:
        complete = _Files(engine, store, report, batch_now, _replaced(store, report), Path(folder)).write()
    store.put(key, complete.as_json(), "application/json")
    return complete


def _replaced(store: ObjectStore, report: Report) -> Report | None:
    """The revision before, as it was kept; `None` of the first, of one that somebody has deleted, and of one without an
    issue, by a version that sent no results out.
    """
    if report.replaces is None:
        return None
    kept = read_document(store, revision_key(report.lab, report.batch_id, report.replaces, REPORT_NAME))
    if kept is None or kept.get("schema") != SCHEMA or "reason" not in kept:
        return None
    return Report.model_validate(kept)


class _Files:
    def __init__(
        self,
        engine: Engine,
        store: ObjectStore,
        report: Report,
        batch: BatchRow,
        replaced: Report | None,
        folder: Path,
    ) -> None:
        self._engine = engine
        self._store = store
        self._report = report
        self._batch = report.lab, report.batch_id
        self._batch_key = batch.batch_key
        self._day = batch.received_on
        self._lab_tests = batch.lab_tests
        self._replaced = replaced
        self._folder = folder
        self._written: set[str] = set()

    def write(self) -> Report:
        """Write everything but report.json; returns the report that names what was written."""
        tables = (*self._tables(), *self._messages())
        of_slides: dict[str, tuple[str, ...]] = {}
        notes: list[str] = []
        for slide in self._report.slides:
            if slide.has_result:
                outlines = self._geojson(slide)
                pictures, remarks = self._pictures(slide)
                of_slides[slide.slide_id] = (*outlines, *pictures)
                notes += remarks
                log.info(
                    "batch %d: slide %s: %d files", self._batch_key, slide.slide_id, len(of_slides[slide.slide_id])
                )
                for remark in remarks:
                    log.warning("batch %d: %s", self._batch_key, remark)
        for prefix in (slides_prefix(*self._batch), specimens_prefix(*self._batch)):
            for stale in list(self._store.list(prefix)):
                if stale.key not in self._written:
                    self._store.delete(stale.key)  # of an earlier closing with more fields or other results
        return self._report.with_files(tables, of_slides, notes)

    def _tables(self) -> tuple[str, ...]:
        cells = self._folder / "cells.parquet"
        for name, write in (("slides.csv", write_slides_csv), ("specimens.csv", write_specimens_csv)):
            write(self._report, self._folder / name)
            self._put_file(name, self._folder / name, "text/csv; charset=utf-8")
        with transaction(self._engine) as session:
            write_cells_parquet(session, self._batch_key, self._day, cells, self._report.warning)
        self._put_file(cells.name, cells, "application/vnd.apache.parquet")
        return "slides.csv", "specimens.csv", cells.name

    def _messages(self) -> Iterator[str]:
        """What a LIMS takes in of each specimen, in FHIR and in HL7."""
        results = list(specimen_results(self._report, lab_tests=self._lab_tests))
        if self._replaced is not None:
            results += withdrawn_results(self._replaced, self._report, lab_tests=self._lab_tests)
        for result in results:
            for message in messages_of(result):
                key = result_key(*self._batch, message.file)
                self._store.put(key, message.content, message.content_type)
                self._written.add(key)
                yield message.file

    def _geojson(self, slide: SlideReport) -> list[str]:
        language, names = load_settings().language, []
        with transaction(self._engine) as session:
            rows = stream_cells(
                *(session, geojson.COLUMNS, self._batch_key, self._day), slide_id=slide.slide_id, order=geojson.ORDER
            )
            for path in geojson.write_geojson(rows, slide, self._report.warning, language, self._folder):
                names.append(self._put_file(slide_file(slide.slide_id, path.name), path, "application/geo+json"))
                path.unlink()
        return names

    def _pictures(self, slide: SlideReport) -> tuple[list[str], list[str]]:
        """The names of the slide's pictures, and notes of what could not be drawn."""
        settings = load_settings()
        limits, language = FieldLimits.of(settings), settings.language
        pictures = SlidePictures(
            self._engine, self._store, self._report, slide, self._batch_key, self._day, limits, language
        )
        names = []
        try:
            for name, image in pictures.draw():
                file = slide_file(slide.slide_id, name)
                key = result_key(*self._batch, file)
                self._store.put(key, _jpeg(image), "image/jpeg")
                self._written.add(key)
                names.append(file)
        except (MorphbatchError, SQLAlchemyError):
            raise  # the store or the database, not the picture
        except Exception as error:
            # Whatever a picture stumbles over, the counts are right and the clinic waits for them.
            log.exception("batch %d: pictures of slide %s", self._batch_key, slide.slide_id)
            pictures.notes.append(f"slide {slide.slide_id}: pictures are missing: {type(error).__name__}: {error}")
        return names, pictures.notes

    def _put_file(self, name: str, path: Path, content_type: str) -> str:
        key = result_key(*self._batch, name)
        self._store.put_file(key, path, content_type)
        self._written.add(key)
        return name


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # full colour: the lines are one pixel wide
    return data.getvalue()
