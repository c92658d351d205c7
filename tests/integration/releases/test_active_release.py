"""Which release a slide is analysed under when another becomes active, on a real Postgres and object store."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from services.batches.due import sweep_database
from services.batches.requeue import requeue
from services.database.session import transaction
from services.releases.activation import follow_active_release
from services.storage import ObjectStore
from tests.integration.analysis.slides import DOCUMENT, ConstantNetworks, Hints, encode, one, run, submit


@pytest.fixture
def second(engine: Engine) -> str:
    """A second release on record."""
    with transaction(engine) as session:
        session.execute(
            text("insert into model_release (id, kind, document) values ('r2', 'untrained', cast(:d as jsonb))"),
            {"d": json.dumps(DOCUMENT)},
        )
    return "r2"


def activate(engine: Engine, release_id: str) -> None:
    with transaction(engine) as session:
        session.execute(text("update model_release set active = false"))
        session.execute(text("update model_release set active = true where id = :id"), {"id": release_id})


def analyses(engine: Engine) -> list[tuple[str, str, str, str | None]]:
    """Slide, release, state and reason of every analysis, in the order of their ids."""
    with transaction(engine) as session:
        rows = session.execute(
            text(
                "select slide_code, release_id, state, reason from analysis a join slide on slide.id = slide_id"
                " order by a.id"
            )
        ).all()
    return [tuple(row) for row in rows]


def test_queued_slides_move_and_a_running_one_ends_under_its_own(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], second: str
) -> None:
    running, queued = submit(engine, empty_bucket, {n: {"f.png": encode(good)} for n in ("a", "b")})

    def switch() -> None:
        activate(engine, second)
        sweep_database(engine, Hints(), 60)

    run(engine, empty_bucket, running, ConstantNetworks(switch))
    assert analyses(engine) == [("a", "r1", "done", None), ("b", "r2", "queued", None)]
    assert run(engine, empty_bucket, queued, ConstantNetworks()) is None
    assert analyses(engine)[1] == ("b", "r2", "queued", "release_not_served"), "Triton is not restarted yet"
    assert one(engine, "select attempts from analysis where id = :id", id=queued) == (0,)
    assert run(engine, empty_bucket, queued, ConstantNetworks(release_id=second)) == 1
    assert analyses(engine)[1] == ("b", "r2", "done", None)
    moved = one(engine, "select batch_id, detail from audit_event where kind = 'slides_moved_to_release'")
    assert moved == (1, {"release": "r2", "slides": ["b"]})
    assert follow_active_release(engine) == 0


def test_a_slide_given_back_by_an_outage_goes_to_the_active_release(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], second: str
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    run(engine, empty_bucket, analysis, ConstantNetworks(release_id=second))
    assert analyses(engine) == [("a", "r1", "queued", "release_not_served")]
    activate(engine, second)
    assert follow_active_release(engine) == 1
    assert run(engine, empty_bucket, analysis, ConstantNetworks(release_id=second)) == 1
    assert analyses(engine) == [("a", "r2", "done", None)]


def test_requeued_slides_run_under_the_active_release_and_their_latest_analysis_counts(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], second: str
) -> None:
    [first] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    run(engine, empty_bucket, first)
    activate(engine, second)
    assert requeue(engine, 1, ["a"], by="test") == ["a"]
    assert analyses(engine) == [("a", "r1", "done", None), ("a", "r2", "queued", None)]
    counts = "select release_id, state, cells, later_state from reporting.slide_result"
    cells = one(engine, "select cells_classified from analysis where id = :id", id=first)[0]
    assert one(engine, counts) == ("r1", "done", cells, "queued"), "what it had counts until there is a new result"

    # Back to the first before it has run: the same version runs under that one.
    activate(engine, "r1")
    assert follow_active_release(engine) == 1
    assert analyses(engine) == [("a", "r1", "done", None), ("a", "r1", "queued", None)]
    [other] = one(engine, "select max(id) from analysis")
    assert run(engine, empty_bucket, other) == 1
    assert one(engine, counts) == ("r1", "done", cells, None)
    assert one(engine, "select count(*), min(analysis_id) from reporting.cell") == (cells, other)

    # And forth again.
    activate(engine, second)
    assert requeue(engine, 1, ["a"], by="test") == ["a"]
    [third] = one(engine, "select max(id) from analysis")
    assert run(engine, empty_bucket, third, ConstantNetworks(release_id=second)) == 1
    assert one(engine, counts) == ("r2", "done", cells, None)
    history = "select array_agg(version || ' ' || release_id || ' ' || counts order by version)"
    assert one(engine, f"{history} from reporting.analysis_history")[0] == ["1 r1 false", "2 r1 false", "3 r2 true"]
    assert one(engine, "select count(*) from reporting.cell_history") == (3 * cells,)


def test_crops_of_another_geometry_than_on_record_are_not_sent(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    with transaction(engine) as session:
        session.execute(text("update model_release set document = jsonb_set(document, '{crop_um}', '16')"))

    def never() -> None:
        raise AssertionError("crops were sent")

    assert run(engine, empty_bucket, analysis, ConstantNetworks(never)) is None
    row = one(engine, "select state, attempts, reason, detail from analysis")
    assert (row.state, row.attempts, row.reason) == ("queued", 0, "configuration")
    assert "24.0 µm" in row.detail
