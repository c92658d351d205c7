"""What the real processes export, and what the HTTP service answers when Postgres does not."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from services.api import database_metrics
from services.api.app import create_app
from services.batches.pausing import pause_lab
from services.database.session import transaction
from services.database.states import SlideState
from services.settings import Settings
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres

Labels = frozenset[tuple[str, str]]


def samples(exposition: str) -> dict[tuple[str, Labels], float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def asked(database_url: str, times: int = 1) -> list[dict[tuple[str, Labels], float]]:
    """What the HTTP service says of a database, asked so often."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(Settings.model_validate({"database_url": database_url})))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.get("/metrics") for _ in range(times)]

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].headers["content-type"].startswith("text/plain")
    return [samples(answer.text) for answer in answers]


def test_work_in_every_state_is_told_as_it_is(night: Night) -> None:
    night.slide(0, {"Normal": 3})
    night.slide(1, {}, state=SlideState.QUARANTINED, reason="checksum_mismatch")
    night.slide(2, {}, state=SlideState.QUEUED, fields=2)
    night.slide(3, {}, state=SlideState.QUEUED, reason="inference_unavailable", fields=1)
    running = night.slide(4, {}, state=SlideState.RUNNING, fields=4)
    with transaction(night.engine) as session:
        session.execute(
            text("update analysis set queued_at = now() - interval '2 h', publish_at = now() + interval '1 h'")
        )
        session.execute(
            text(
                "update analysis set started_at = now() - interval '1 h', lease_until = now() - interval '5 min'"
                " where id = :id"
            ),
            {"id": running},
        )
    [found] = asked(night.engine.url.render_as_string(hide_password=False))
    assert found["morphbatch_database_up", labelled()] == 1
    assert found["morphbatch_batches", labelled(state="analysing")] == 1
    assert found["morphbatch_batches_unclosed", labelled()] == 0
    slides = {state: found["morphbatch_slides", labelled(state=state)] for state in (*SlideState, "held")}
    expected = {"queued": 2, "running": 1, "done": 1, "quarantined": 1, "insufficient": 0, "cancelled": 0, "held": 0}
    assert slides == expected
    assert found["morphbatch_quarantined_slides", labelled(reason="checksum_mismatch")] == 1
    assert found["morphbatch_waiting_slides", labelled(reason="inference_unavailable")] == 1
    assert found["morphbatch_oldest_slide_age_seconds", labelled(state="queued")] == pytest.approx(7200, abs=120)
    assert found["morphbatch_oldest_slide_age_seconds", labelled(state="running")] == pytest.approx(3600, abs=120)
    assert found["morphbatch_expired_leases", labelled()] == 1
    assert found["morphbatch_outstanding_fields", labelled()] == 7
    assert found["morphbatch_deliveries", labelled(state="waiting")] == 0
    assert found["morphbatch_oldest_delivery_age_seconds", labelled()] == 0
    assert found["morphbatch_partitions_missing", labelled()] == 0
    assert found["morphbatch_release_info", labelled(release="r1", kind="untrained")] == 1


def test_slides_of_a_paused_lab_are_held_and_do_not_scale_workers(night: Night) -> None:
    night.slide(0, {}, state=SlideState.QUEUED, fields=2)
    night.slide(1, {}, state=SlideState.RUNNING, fields=4)
    pause_lab(night.engine, "berlin", by="anna", why="microscope doubtful")
    [found] = asked(night.engine.url.render_as_string(hide_password=False))
    slides = {state: found["morphbatch_slides", labelled(state=state)] for state in ("queued", "running", "held")}
    assert slides == {"queued": 0, "running": 1, "held": 1}
    assert found["morphbatch_oldest_slide_age_seconds", labelled(state="queued")] == 0
    assert found["morphbatch_outstanding_fields", labelled()] == 4


def test_a_batch_without_a_report_and_a_month_without_a_partition(night: Night, postgres: Postgres) -> None:
    night.slide(0, {"Normal": 3})
    with postgres.as_owner(night.engine) as session:
        month = session.execute(text("select to_char(now() + interval '1 month', '\"cell_\"YYYY_MM')")).scalar_one()
        session.execute(text(f"drop table {month}"))
    [found] = asked(night.engine.url.render_as_string(hide_password=False))
    assert found["morphbatch_batches_unclosed", labelled()] == 1
    assert found["morphbatch_partitions_missing", labelled()] == 1


def test_a_postgres_that_is_down_is_told_and_the_rest_answers() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        [found] = asked(f"postgresql+psycopg2://x@127.0.0.1:{nobody.getsockname()[1]}/x")
    assert found["morphbatch_database_up", labelled()] == 0
    assert not [name for name, _ in found if name.startswith("morphbatch_slides")]


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_postgres_that_hangs_holds_nobody_up(hanging: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_metrics, "PATIENCE_S", 0.2)
    answers = asked(f"postgresql+psycopg2://x@127.0.0.1:{hanging}/x", times=3)
    assert [found["morphbatch_database_up", labelled()] for found in answers] == [0, 0, 0]
    asking = [thread for thread in threading.enumerate() if thread.name == "database-metrics"]
    assert len(asking) == 1, "one that hangs is enough"
