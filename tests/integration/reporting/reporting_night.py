"""Rows and fields of a night as the pipeline leaves them, for the tests of reports and views."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import cv2
import numpy as np
from sqlalchemy import Engine, text

from services.database.models import (
    Analysis,
    Batch,
    Cell,
    FieldResult,
    FieldRow,
    Lab,
    ModelRelease,
    Slide,
    SlideClassCount,
)
from services.database.session import transaction
from services.database.states import BatchState, SlideState
from services.reporting.write import write_batch_report
from services.storage import ObjectStore
from services.taxonomy import class_named

DAY = date(2026, 11, 23)
PREFIX = "results/berlin/night-1/"
DOCUMENT = {"crop_px": 128, "crop_um": 16.0, "fusion": {"alpha": 0.55, "temperatures": {}}}
NORMAL_SHAPE = {"head_length_um": 4.2, "head_width_um": 2.8, "ellipticity": 1.5, "acrosome_share": 0.5}


@dataclass
class Night:
    """Writes a night's rows as the pipeline does, and its fields into the store."""

    engine: Engine
    store: ObjectStore
    batch_key: int = 0

    def __post_init__(self) -> None:
        with transaction(self.engine) as session:
            session.execute(text("select make_cell_partitions(:day, 1)"), {"day": DAY})
            session.merge(ModelRelease(id="r1", kind="untrained", active=True, document=DOCUMENT))
            lab = Lab(code="berlin")
            session.add(lab)
            session.flush()
            batch = Batch(lab_id=lab.id, batch_id="night-1", state="analysing", manifest_sha256="0", manifest_etag="0")
            batch.received_on = DAY
            session.add(batch)
            session.flush()
            self.batch_key = batch.id

    def slide(
        self,
        position: int,
        counts: dict[str, int],
        *,
        specimen: str = "S-01",
        replicate: int = 1,
        state: SlideState = SlideState.DONE,
        release: str = "r1",
        reason: str | None = None,
        fields: int = 2,
        outlines: bool = True,
        cut: dict[str, int] | None = None,
    ) -> int:
        """A slide whose cells stand in rows on its fields, those that are `cut` last; returns its analysis."""
        with transaction(self.engine) as session:
            slide = Slide(batch_key=self.batch_key, position=position, slide_id=f"slide-{position}", stain="shorr")
            slide.specimen, slide.replicate, slide.um_per_px = specimen, replicate, 0.1
            session.add(slide)
            session.flush()
            keys = [self._field(slide.slide_id, number) for number in range(fields)]
            rows = [FieldRow(slide_key=slide.id, position=n, key=key, sha256=sha) for n, (key, sha) in enumerate(keys)]
            session.add_all(rows)
            session.flush()
            ids = [row.id for row in rows]
            slide_key = slide.id
        return self.analysis(
            slide_key, ids, counts, state=state, release=release, reason=reason, outlines=outlines, cut=cut
        )

    def analysis(
        self,
        slide_key: int,
        fields: list[int],
        counts: dict[str, int],
        *,
        state: SlideState = SlideState.DONE,
        release: str = "r1",
        reason: str | None = None,
        outlines: bool = True,
        version: int = 1,
        cut: dict[str, int] | None = None,
    ) -> int:
        """An analysis of a slide with its results."""
        now = datetime(2026, 11, 23, 2, tzinfo=UTC)
        with transaction(self.engine) as session:
            analysis = Analysis(slide_key=slide_key, release_id=release, state=state, reason=reason, attempts=1)
            analysis.version = version
            analysis.started_at, analysis.finished_at, analysis.timings = now, now, {"total": 2.5}
            analysis.detail = reason and f"field broken: {reason}"
            analysis.cells_classified, analysis.cells_on_border, analysis.objects_rejected = sum(counts.values()), 2, 1
            if cut:
                analysis.not_counted_by_reason = {"cut_by_border": sum(cut.values())}
            session.add(analysis)
            session.flush()
            for field_id in fields:
                result = FieldResult(analysis_id=analysis.id, field_id=field_id, width_px=640, height_px=480)
                result.quality = {"focus_um": 0.5, "stain_od": None, "flags": ["soft_focus"], "notes": []}
                result.rejected = [
                    {"box": [0, 400, 30, 430], "reason": "border"},
                    {"box": [500, 400, 540, 440], "reason": "shape"},
                ]
                session.add(result)
            session.flush()
            number = 0
            for name, cells in counts.items():
                index = class_named(name).index
                session.add(SlideClassCount(analysis_id=analysis.id, class_index=index, cells=cells))
                for _ in range(cells):
                    number += 1
                    session.add(cell_row(analysis.id, number, fields[number % len(fields)], index, outlines=outlines))
            for name in [name for name, cells in (cut or {}).items() for _ in range(cells)]:
                number += 1
                field_id, index = fields[number % len(fields)], class_named(name).index
                row = cell_row(analysis.id, number, field_id, index, outlines=outlines)
                row.crop_inside_share, row.not_counted = 0.625, "cut_by_border"
                session.add(row)
            return analysis.id

    def _field(self, slide: str, number: int) -> tuple[str, str]:
        pixels = np.full((480, 640, 3), 225, np.uint8)
        cv2.ellipse(pixels, (300, 200), (21, 14), 30 * number, 0, 360, (150, 60, 120), -1)
        key = f"{slide}/field-{number}.png"
        pixels[0, 0] = list(hashlib.sha256(key.encode()).digest()[:3])  # no two files have the same bytes
        data = cv2.imencode(".png", pixels)[1].tobytes()
        self.store.put(f"incoming/berlin/night-1/{key}", data)
        return key, hashlib.sha256(data).hexdigest()

    def write(self, state: BatchState | None = None) -> dict[str, Any]:
        """The report as the store has it after writing."""
        write_batch_report(self.engine, self.store, self.batch_key, state)
        document: dict[str, Any] = json.loads(self.get("report.json"))
        return document

    def get(self, name: str) -> bytes:
        """A file of the results."""
        return self.store.get(PREFIX + name, max_bytes=2**26)

    def results(self) -> dict[str, str]:
        """The checksums of all results by name."""
        names = [found.key.removeprefix(PREFIX) for found in self.store.list(PREFIX)]
        return {name: hashlib.sha256(self.get(name)).hexdigest() for name in names}


def cell_row(analysis_id: int, number: int, field_id: int, index: int, *, outlines: bool) -> Cell:
    x, y = 20 + 50 * (number % 11), 20 + 40 * (number // 11 % 9)
    probabilities = np.full(18, 0.01, np.float32)
    probabilities[index] = 0.83
    polygon = np.array([[x, y + 10], [x + 20, y], [x + 40, y + 10], [x + 20, y + 25]], "<u2")
    return Cell(
        received_on=DAY, analysis_id=analysis_id, number=number, field_id=field_id, x0=x, y0=y, x1=x + 41, y1=y + 26,
        class_index=index, confidence=0.83 if number % 4 else 0.4, probabilities=probabilities.tolist(),
        efficientnetv2_s_logits=[0.5] * 18, resnetv2_50_logits=[float(i) for i in range(18)],
        head_outline=polygon.tobytes() if outlines else None,
        **(NORMAL_SHAPE if number % 2 else {}),
    )  # fmt: skip


def fill(night: Night) -> Night:
    night.slide(0, {"Normal": 8, "AmorfHead": 192})
    night.slide(1, {"Normal": 14, "TwistedTail": 150, "ThinNeck": 36}, replicate=2)
    night.slide(2, {}, specimen="S-02", state=SlideState.QUARANTINED, reason="checksum_mismatch")
    night.slide(3, {"PinHead": 3}, specimen="S-03", state=SlideState.INSUFFICIENT, reason="too_few_cells", fields=1)
    return night
