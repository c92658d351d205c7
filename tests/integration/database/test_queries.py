"""What is asked of the server itself, on a real Postgres."""

from datetime import UTC, datetime

from sqlalchemy import Engine, text

from services.database.queries import clock_ahead_s, has_role, months_ahead, readable_views
from services.database.session import transaction
from services.database.states import SlideState
from tests.integration.reporting.reporting_night import Night


def test_every_reporting_view_is_read(engine: Engine) -> None:
    with transaction(engine) as session:
        assert {"slide_result", "batch_overview", "current_analysis"} <= set(readable_views(session))


def test_months_without_a_partition_are_found(engine: Engine) -> None:
    with transaction(engine) as session:
        months = months_ahead(session, 4)
    assert next(iter(months)) == datetime.now(UTC).date().replace(day=1)
    assert list(months.values()) == [True, True, True, False]


def test_the_role_and_the_clock_of_the_server(engine: Engine) -> None:
    with transaction(engine) as session:
        assert has_role(session, "morphbatch_analyst")
        assert not has_role(session, "nobody")
        assert abs(clock_ahead_s(session)) < 1


def test_what_is_outstanding_is_what_is_queued_or_running_by_lab(night: Night) -> None:
    night.slide(0, {"Normal": 3})
    night.slide(1, {}, state=SlideState.QUARANTINED, reason="checksum_mismatch")
    with transaction(night.engine) as session:
        assert session.execute(text("select * from operations.outstanding")).all() == []
    night.slide(2, {}, state=SlideState.QUEUED, fields=2)
    night.slide(3, {}, state=SlideState.QUEUED, fields=1)
    running = night.slide(4, {}, state=SlideState.RUNNING, fields=4)
    with transaction(night.engine) as session:
        oldest = session.execute(
            text("update analysis set queued_at = now() - interval '1 hour' where id = :id returning queued_at"),
            {"id": running},
        ).scalar_one()
    with transaction(night.engine) as session:
        [row] = session.execute(text("select * from operations.outstanding")).mappings().all()
    assert row == {
        "lab": "berlin", "slides_queued": 2, "slides_running": 1, "slides": 3, "fields": 7, "oldest_queued_at": oldest,
        "slides_held": 0,
    }  # fmt: skip
