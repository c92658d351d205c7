"""How many workers Postgres wants: values worked out by hand, and the same as the rule that simulations play."""

import random
from datetime import UTC, datetime, time, timedelta

import psycopg2
import pytest
import yaml
from sqlalchemy import Engine, text

from services.capacity.scaling import ByForecast, Outstanding
from services.database.session import transaction
from tests.integration.capacity.waiting_slides import Slides
from tests.integration.servers import Postgres
from tests.places import CHECKOUT

NOON = datetime(2026, 11, 23, 9, tzinfo=UTC)  # in Istanbul
ZONE = "Europe/Istanbul"


def wanted(engine: Engine, moment: datetime, finish_by: str = "07:00", zone: str = ZONE) -> int:
    question = text("select operations.workers_wanted(:finish_by, :zone, :moment)")
    with transaction(engine) as session:
        return int(session.execute(question, {"finish_by": finish_by, "zone": zone, "moment": moment}).scalar_one())


def hours(after_noon: float) -> datetime:
    return NOON + timedelta(hours=after_noon)


@pytest.fixture
def slides(engine: Engine) -> Slides:
    return Slides(engine, NOON)


def measured(slides: Slides, fields_per_s: float) -> None:
    """A worker did so much just now."""
    now = datetime.now(UTC)
    slides.add(40, state="done", started_at=now - timedelta(hours=1), finished_at=now, seconds=40 / fields_per_s)


def test_nothing_outstanding_wants_nobody(engine: Engine, slides: Slides) -> None:
    measured(slides, 0.1)
    assert [wanted(engine, hours(h)) for h in (0, 8, 18, 20)] == [0, 0, 0, 0]


def test_as_few_as_end_the_night_by_the_hour(engine: Engine, slides: Slides) -> None:
    for _ in range(9):
        slides.add(80, queued_at=hours(1))
    slides.add(80, queued_at=hours(1), state="running", started_at=hours(8))
    assert wanted(engine, hours(8)) == 3  # 10 slides, and nothing measured: four each
    measured(slides, 0.01)  # 800 fields are 80,000 s of a worker
    assert wanted(engine, hours(7)) == 3  # 12 h of which 80 %: 2.3
    assert wanted(engine, hours(13)) == 5  # 4.6
    assert wanted(engine, hours(18.5)) == 10  # 55.6, and no more than slides
    assert wanted(engine, hours(19)) == 10  # late since now: all in ten minutes
    assert wanted(engine, hours(7), "01:00") == 5  # 6 h: 4.6
    assert wanted(engine, hours(13), zone="UTC") == 4  # ten at night there: 3.1


def test_what_is_urgent_is_done_within_minutes(engine: Engine, slides: Slides) -> None:
    measured(slides, 0.1)
    slides.add(30, queued_at=hours(1))
    slides.add(30, queued_at=hours(2), urgent=True)
    assert wanted(engine, hours(3)) == 1  # 300 s
    slides.add(90, queued_at=hours(2), urgent=True)
    assert wanted(engine, hours(3)) == 2  # 1200 s
    slides.add(600, queued_at=hours(2), urgent=True)
    assert wanted(engine, hours(3)) == 4  # 12, and no more than slides


def test_slides_that_are_held_want_nobody(engine: Engine, slides: Slides) -> None:
    measured(slides, 0.01)
    slides.add(80, queued_at=hours(1))
    assert wanted(engine, hours(13)) == 1
    with transaction(engine) as session:
        session.execute(text("update lab set paused_at = now()"))
    assert wanted(engine, hours(13)) == 0


def test_what_keda_asks_is_answered_to_its_role(engine: Engine, slides: Slides, postgres: Postgres) -> None:
    (scaled, _) = yaml.safe_load_all((CHECKOUT / "deploy/kubernetes/base/scaling.yaml").read_text(encoding="utf-8"))
    slides.add(80, urgent=True)
    postgres.administer("grant connect on database {} to morphbatch_scaler", engine.url.database)
    postgres.administer("create role {} login password 'asks' in role morphbatch_scaler", "keda")
    try:
        asks = engine.url.set(drivername="postgresql", username="keda", password="asks")
        connection = psycopg2.connect(asks.render_as_string(hide_password=False))
        with connection.cursor() as cursor:
            cursor.execute(scaled["spec"]["triggers"][0]["metadata"]["query"])
            assert cursor.fetchall() == [(1,)]
        connection.close()
    finally:
        postgres.administer("revoke connect on database {} from morphbatch_scaler", engine.url.database)
        postgres.administer("drop role {}", "keda")


@pytest.mark.parametrize("seed", range(1, 4))
def test_simulations_play_the_same_rule(engine: Engine, slides: Slides, seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 - states of a test
    speed = drawn.choice([0.05, 0.1, 0.2])
    measured(slides, speed)
    outstanding = []
    for _ in range(drawn.randint(20, 30)):
        fields, at, urgent = drawn.randint(1, 60), drawn.uniform(0, 20), drawn.random() < 0.05
        slides.add(fields, queued_at=hours(at), urgent=urgent)
        outstanding.append((fields, at * 3600, urgent))
    rule = ByForecast(1000, time(7))
    answers = []
    for _ in range(25):
        now = drawn.uniform(0, 20) * 3600
        at_once = [f for f, at, urgent in outstanding if urgent or at < rule.last_due(now)]
        work = Outstanding(now, len(outstanding), sum(f for f, *_ in outstanding), len(at_once), sum(at_once), speed)
        answers.append(rule.wanted(work))
        assert wanted(engine, hours(now / 3600)) == answers[-1]
    assert len(set(answers)) > 2
