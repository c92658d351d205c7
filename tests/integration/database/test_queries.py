"""What is asked of the server itself, on a real Postgres."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from services.database.queries import clock_ahead_s, has_role, months_ahead, readable_views
from services.database.session import transaction


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
