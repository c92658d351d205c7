"""How many cells a second get a new fusion, on a real Postgres filled with drawn logits."""

import hashlib
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from migrations.run import upgrade
from services.analysis.rows import CopySpool
from services.benchmark.spread import machine, spread
from services.database.models import (
    Analysis,
    Batch,
    FieldResult,
    FieldRow,
    Lab,
    ModelRelease,
    Slide,
    SlideClassCount,
)
from services.database.session import make_engine, transaction
from services.local.child import Child, ServiceState
from services.local.installation import OWNER, SERVICE, prepare_installation
from services.local.postgres import postgres_service
from services.releases.fusion import fuse
from services.releases.reapply import Reapplication, count_changes, plan_reapplication, write_reapplication
from services.releases.schema import MEMBERS, FileDigest, Fusion, Member, Release, ReleaseKind
from services.taxonomy import CLASS_NAMES

DAY: Final = date(2026, 11, 2)
ALPHAS: Final = (0.5, 0.8, 0.3, 0.6)
_TICK_S: Final = 0.01  # the kernel counts a process's time in these
_CELLS_A_SLIDE: Final = 400
_SLIDES_A_BATCH: Final = 20
_COLUMNS: Final = (
    *("received_on", "analysis_id", "number", "field_id", "x0", "y0", "x1", "y1", "class_index", "confidence"),
    *("probabilities", "efficientnetv2_s_logits", "resnetv2_50_logits", "head_outline"),
    *("head_length_um", "head_width_um", "head_area_um2", "ellipticity"),
)
Tell = Callable[[str], None]


def measure_reapply(home: Path, cells: int, repeats: int, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Recompute `cells` cells, `repeats` times, each time under another release and from that of the time before.

    The figure of one core counts the processor's seconds of this process and of Postgres's backends together.
    """
    about = machine()
    runs: dict[str, list[float]] = defaultdict(list)
    with _postgres(home) as (owner, engine):
        tell(f"drawing {cells} cells")
        fill(owner, cells, releases=repeats + 1)
        for number in range(repeats):
            plan = plan_reapplication(engine, f"bench-{number + 1}", DAY)
            counting, writing = (_measured(engine, plan, work) for work in (_count, _apply))
            both = tuple(map(sum, zip(counting, writing, strict=True)))
            for what, (seconds, cpu) in (("counted", counting), ("written", writing), ("both", both)):
                runs[what].append(plan.cells / seconds)
                runs[f"{what}_of_one_core"].append(plan.cells / cpu)
            tell(f"repeat {number + 1} of {repeats}: {runs['written'][-1]:.0f} cells per second")
    return {
        "machine": about,
        "cells": plan.cells,
        "slides": plan.slides,
        **{f"{name}_cells_per_s": spread(values) for name, values in runs.items()},
    }


def fill(engine: Engine, cells: int, releases: int = 2) -> None:
    """Write batches of slides with drawn logits, analysed under `bench-0`; `bench-1` and so on have other fusions."""
    rng = np.random.default_rng(1)
    with transaction(engine) as session:
        session.execute(text("select make_cell_partitions(:day, 1)"), {"day": DAY})
        for number in range(releases):
            release = _release(f"bench-{number}", ALPHAS[number % len(ALPHAS)])
            session.add(ModelRelease(id=release.id, kind=release.kind, document=release.document()))
        lab = Lab(code="bench")
        session.add(lab)
        session.flush()
        slides = -(-cells // _CELLS_A_SLIDE)
        for first in range(0, slides, _SLIDES_A_BATCH):
            batch = Batch(lab_id=lab.id, batch_id=f"b{first}", state="complete", received_on=DAY)
            batch.manifest_sha256 = batch.manifest_etag = "0"
            session.add(batch)
            session.flush()
            spool = CopySpool("cell", _COLUMNS)
            for position in range(min(_SLIDES_A_BATCH, slides - first)):
                here = min(_CELLS_A_SLIDE, cells - (first + position) * _CELLS_A_SLIDE)
                _fill_slide(session, batch.id, position, here, rng, spool)
            spool.write(session)
            spool.close()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def _fill_slide(
    session: Session, batch_key: int, position: int, cells: int, rng: np.random.Generator, spool: CopySpool
) -> None:
    slide = Slide(batch_key=batch_key, position=position, slide_id=f"s{position}", specimen="S-1", replicate=1)
    slide.stain, slide.um_per_px = "shorr", 0.1
    session.add(slide)
    session.flush()
    field = FieldRow(slide_key=slide.id, position=0, key=f"s{position}/f.jpg", sha256="0")
    now = datetime(2026, 11, 2, 23, tzinfo=UTC)
    analysis = Analysis(slide_key=slide.id, release_id="bench-0", state="done", attempts=1, cells_classified=cells)
    analysis.started_at = analysis.finished_at = now
    session.add_all([field, analysis])
    session.flush()
    session.add(FieldResult(analysis_id=analysis.id, field_id=field.id, width_px=1280, height_px=1024, cells=cells))
    first, second = (rng.normal(0, 3, (cells, len(CLASS_NAMES))).astype(np.float32) for _ in MEMBERS)
    said = fuse(first, second, alpha=ALPHAS[0])
    best = said.argmax(axis=1)
    outline = rng.integers(0, 1280, 128).astype("<u2").tobytes()
    for n in range(cells):
        index = int(best[n])
        where = (DAY, analysis.id, n + 1, field.id, 10, 10, 50, 40)
        spool.add((*where, index, float(said[n, index]), said[n], first[n], second[n], outline, 4.2, 2.8, 9.1, 1.5))
    found, counts = np.unique(best, return_counts=True)
    session.add_all(
        SlideClassCount(analysis_id=analysis.id, class_index=int(index), cells=int(count))
        for index, count in zip(found, counts, strict=True)
    )


def _release(release_id: str, alpha: float) -> Release:
    files = {f"{m}/model.onnx": FileDigest(sha256=hashlib.sha256(m.encode()).hexdigest(), size=1) for m in MEMBERS}
    return Release(
        id=release_id,
        kind=ReleaseKind.UNTRAINED,
        git_commit=None,
        created=datetime(2026, 11, 1, tzinfo=UTC),
        data_fingerprint=None,
        classes=CLASS_NAMES,
        crop_px=192,
        crop_um=24.0,
        members={m: Member(onnx=f"{m}/model.onnx") for m in MEMBERS},
        fusion=Fusion(alpha=alpha, temperatures=dict.fromkeys(MEMBERS, 1.0)),
        metrics={},
        files=files,
    )


def _count(engine: Engine, plan: Reapplication) -> None:
    count_changes(engine, plan)


def _apply(engine: Engine, plan: Reapplication) -> None:
    write_reapplication(engine, plan, by="benchmark")


def _measured(
    engine: Engine, plan: Reapplication, work: Callable[[Engine, Reapplication], None]
) -> tuple[float, float]:
    """Seconds, and seconds of the processor."""
    before, started = _cpu_seconds(engine), time.perf_counter()
    work(engine, plan)
    seconds = time.perf_counter() - started
    return seconds, max(_cpu_seconds(engine) - before, _TICK_S)


def _cpu_seconds(engine: Engine) -> float:
    with engine.connect() as connection:
        backends = connection.scalars(
            text("select pid from pg_stat_activity where application_name = 'morphbatch'")
        ).all()
    times = [psutil.Process(pid).cpu_times() for pid in (os.getpid(), *backends)]
    return float(sum(t.user + t.system for t in times))


@contextmanager
def _postgres(home: Path) -> Iterator[tuple[Engine, Engine]]:
    """A Postgres of its own with the migrations applied, gone with its data at the end; for its owner, the service."""
    shutil.rmtree(home, ignore_errors=True)
    installation = prepare_installation(home, "rclone", minio_available=False)
    child = Child(postgres_service(installation), installation.logs / "postgres.log", os.environ)
    child.start()
    try:
        while child.state is not ServiceState.READY:
            child.look()
            time.sleep(0.05)
        upgrade(installation.database_url(OWNER))
        owner, engine = (make_engine(installation.database_url(role)) for role in (OWNER, SERVICE))
        try:
            yield owner, engine
        finally:
            owner.dispose()
            engine.dispose()
    finally:
        child.stop()
        shutil.rmtree(home, ignore_errors=True)
