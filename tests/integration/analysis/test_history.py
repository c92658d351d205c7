"""Nothing that was found is ever lost: what counts, what is pending, and what was before, on a real Postgres."""

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from services.analysis.slide import SlideResult
from services.batches.closing import close_batch
from services.batches.due import sweep_database
from services.batches.requeue import requeue
from services.database.faults import DatabaseRefused
from services.database.session import make_engine, transaction
from services.database.states import BatchState
from services.errors import TransientError
from services.made_with import detector, software
from services.storage import ObjectStore
from tests.integration.analysis.slides import SETTINGS, ConstantNetworks, Hints, encode, one, run, submit

COUNTS = (
    "select version, state, later_version, later_state, later_reason, cells,"
    " (select count(*) from reporting.cell), (select coalesce(sum(cells), 0) from reporting.class_distribution)"
    " from reporting.slide_result"
)


def killed(work: Callable[[], None]) -> None:
    """Run `work` in a process that it ends by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)  # it should not have come so far
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("dies", ["before its rows", "within its transaction"])
def test_what_was_found_counts_while_the_slide_goes_round_and_its_worker_is_killed(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    [first] = submit(engine, empty_bucket, {"a": {"f.png": encode(good[..., ::-1])}})
    run(engine, empty_bucket, first)
    close_batch(engine, empty_bucket, 1)
    cells = one(engine, "select cells_classified from analysis").cells_classified
    assert one(engine, COUNTS) == (1, "done", None, None, None, cells, cells, cells)

    assert requeue(engine, 1, ["a"], by="anna", why="focus corrected") == ["a"]
    assert one(engine, COUNTS) == (1, "done", 2, "queued", None, cells, cells, cells)
    assert one(engine, "select slides_done, slides_open, slides_pending from reporting.batch_overview") == (1, 0, 1)
    [second] = one(engine, "select max(id) from analysis")

    def analysed_and_killed() -> None:
        own = make_engine(engine.url.render_as_string(hide_password=False))
        real = SlideResult.write

        def write(self: SlideResult, *arguments: Any, **options: Any) -> None:
            real(self, *arguments, **options)
            die()

        if dies == "within its transaction":
            monkeypatch.setattr(SlideResult, "write", write)
        run(own, empty_bucket, second, ConstantNetworks(die if dies == "before its rows" else lambda: None))

    killed(analysed_and_killed)
    assert one(engine, COUNTS) == (1, "done", 2, "running", None, cells, cells, cells)
    with transaction(engine) as session:
        session.execute(text("update analysis set lease_until = now() - interval '1 s' where state = 'running'"))
    sweep_database(engine, Hints(), republish_s=60)
    assert run(engine, empty_bucket, second) == 1
    assert close_batch(engine, empty_bucket, 1) is BatchState.COMPLETE
    assert one(engine, COUNTS) == (2, "done", None, None, None, cells, cells, cells)
    history = one(
        engine,
        "select array_agg(version || ' ' || counts || ' ' || cells || ' ' || coalesce(asked_by, '-') order by version)"
        " from reporting.analysis_history",
    )
    assert history[0] == [f"1 false {cells} -", f"2 true {cells} anna"]
    assert one(engine, "select count(*) from reporting.cell_history") == (2 * cells,)
    assert one(engine, "select count(*), sum(cells) from reporting.class_history where counts") == (18, cells)


def test_a_failed_second_analysis_takes_nothing_away_and_is_shown_apart(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [first] = submit(engine, empty_bucket, {"a": {"f.png": encode(good[..., ::-1])}})
    run(engine, empty_bucket, first)
    cells = one(engine, "select cells_classified from analysis").cells_classified
    requeue(engine, 1, ["a"], by="anna")
    [second] = one(engine, "select max(id) from analysis")

    def fail() -> None:
        raise TransientError("hm")

    for _ in range(SETTINGS.max_attempts):
        run(engine, empty_bucket, second, ConstantNetworks(fail))
    assert one(engine, COUNTS) == (1, "done", 2, "quarantined", "transient", cells, cells, cells)
    assert close_batch(engine, empty_bucket, 1) is BatchState.COMPLETE_WITH_ERRORS, "somebody has to look at it"


def test_what_it_was_made_with_stands_with_each_analysis(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    found, broken = submit(engine, empty_bucket, {"a": {"f.png": encode(good[..., ::-1])}, "b": {"f.png": b"no image"}})
    run(engine, empty_bucket, found)
    run(engine, empty_bucket, broken)
    with transaction(engine) as session:
        rows = session.execute(
            text("select software, detector, form, settings, made_with_sha256 from reporting.analysis_history")
        ).all()
    settings = {"minimum_cells": 1, "max_field_bytes": 64 * 2**20, "max_field_pixels": 60_000_000}
    assert [tuple(row)[:4] for row in rows] == [(software(), detector(), "openvino-fp32", settings)] * 2
    assert len({row.made_with_sha256 for row in rows}) == 1
    assert software().startswith("0.")


@pytest.mark.parametrize("table", ["cell", "field_result", "slide_class_count", "analysis"])
def test_the_service_itself_cannot_take_away_what_was_found(engine: Engine, table: str) -> None:
    with pytest.raises((DatabaseRefused, ProgrammingError), match="permission denied"), transaction(engine) as session:
        session.execute(text(f"delete from {table}"))
