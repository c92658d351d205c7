"""Everything that a batch leaves in `results/<lab>/<batch>/`; report.json comes last, so that it means: complete."""

import io
import json
import logging
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from services.database.session import transaction
from services.database.states import BatchState
from services.errors import MorphbatchError
from services.keys import report_key, result_key, slide_file, slides_prefix
from services.reporting.exports.geojson import COLUMNS as GEOJSON_COLUMNS
from services.reporting.exports.geojson import write_geojson
from services.reporting.exports.tables import stream_cells, write_cells_parquet, write_slides_csv
from services.reporting.pictures.draw import PictureLimits, SlidePictures
from services.reporting.pictures.sheet import JPEG_QUALITY
from services.reporting.report import HAS_RESULT, build_report
from services.settings import load_settings
from services.storage import ObjectStore

log = logging.getLogger(__name__)


def write_batch_report(
    engine: Engine, store: ObjectStore, batch_id: int, state: BatchState | None = None
) -> dict[str, Any]:
    """Write all files of the batch with the database id `batch_id`, and return its report.

    `state` is what the report says when the batch is about to be closed. The same rows give the same bytes, so that a
    second call changes nothing. A picture that cannot be drawn becomes a line of the report's `notes`.

    Raises:
        OutageError: the database or the store failed; nothing is announced, call again later.
        NoSuchBatch: there is none.
    """
    with transaction(engine) as session:
        # One snapshot: shares, intervals and measures of a report belong together.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        report = build_report(session, batch_id, state)
        day: date = session.execute(text("select received_on from batch where id = :id"), {"id": batch_id}).scalar_one()
    key = report_key(report["lab"], report["batch"])
    store.delete(key)  # of an earlier closing: while files change, nothing claims to be complete
    with TemporaryDirectory(prefix="morphbatch-report-") as folder:
        _Files(engine, store, report, batch_id, day, Path(folder)).write()
    store.put(key, as_json(report), "application/json")
    return report


def as_json(report: dict[str, Any]) -> bytes:
    """The report as it is stored."""
    return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()


class _Files:
    def __init__(
        self,
        engine: Engine,
        store: ObjectStore,
        report: dict[str, Any],
        batch_id: int,
        day: date,
        folder: Path,
    ) -> None:
        self._engine = engine
        self._store = store
        self._report = report
        self._batch = report["lab"], report["batch"]
        self._batch_id = batch_id
        self._day = day
        self._folder = folder
        self._written: set[str] = set()

    def write(self) -> None:
        self._tables()
        for slide in self._report["slides"]:
            if slide["state"] in HAS_RESULT:
                before = len(self._report["notes"])
                names = [self._outlines(slide), *self._pictures(slide)]
                slide["files"] = names
                log.info("batch %d: slide %s: %d files", self._batch_id, slide["slide_id"], len(names))
                for note in self._report["notes"][before:]:
                    log.warning("batch %d: %s", self._batch_id, note)
        for stale in list(self._store.list(slides_prefix(*self._batch))):
            if stale.key not in self._written:
                self._store.delete(stale.key)  # of an earlier closing with more fields or other results

    def _tables(self) -> None:
        slides, cells = self._folder / "slides.csv", self._folder / "cells.parquet"
        write_slides_csv(self._report, slides)
        with transaction(self._engine) as session:
            write_cells_parquet(session, self._batch_id, self._day, cells, self._report.get("warning"))
        self._put_file(slides.name, slides, "text/csv; charset=utf-8")
        self._put_file(cells.name, cells, "application/vnd.apache.parquet")
        self._report["files"] = [slides.name, cells.name]

    def _outlines(self, slide: dict[str, Any]) -> str:
        path = self._folder / "cells.geojson"
        with transaction(self._engine) as session:
            rows = stream_cells(session, GEOJSON_COLUMNS, self._batch_id, self._day, slide_id=slide["slide_id"])
            write_geojson(rows, slide, self._report.get("warning"), path)
        return self._put_file(slide_file(slide["slide_id"], path.name), path, "application/geo+json")

    def _pictures(self, slide: dict[str, Any]) -> list[str]:
        settings = load_settings()
        releases = [self._report["release"], *self._report["other_releases"]]
        crop_um = next(r["crop_um"] for r in releases if r["id"] == slide["release_id"])
        limits = PictureLimits(settings.max_field_bytes, settings.max_field_pixels)
        pictures = SlidePictures(
            self._engine, self._store, self._report, slide, self._batch_id, self._day, crop_um, limits
        )
        names = []
        try:
            for name, image in pictures.draw():
                file = slide_file(slide["slide_id"], name)
                key = result_key(*self._batch, file)
                self._store.put(key, _jpeg(image), "image/jpeg")
                self._written.add(key)
                names.append(file)
        except (MorphbatchError, SQLAlchemyError):
            raise  # the store or the database, not the picture
        except Exception as error:
            # Whatever a picture stumbles over, the counts are right and the clinic waits for them.
            log.exception("batch %d: pictures of slide %s", self._batch_id, slide["slide_id"])
            pictures.notes.append(f"slide {slide['slide_id']}: pictures are missing: {type(error).__name__}: {error}")
        self._report["notes"] += pictures.notes
        return names

    def _put_file(self, name: str, path: Path, content_type: str) -> str:
        key = result_key(*self._batch, name)
        self._store.put_file(key, path, content_type)
        self._written.add(key)
        return name


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # full colour: the lines are one pixel wide
    return data.getvalue()
