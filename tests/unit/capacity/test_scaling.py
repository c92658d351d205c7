"""How many workers a rule wants, and how KEDA and Kubernetes follow it."""

from datetime import time

import pytest

from services.capacity.nights import after_noon
from services.capacity.scaling import POLL_S, Autoscaler, ByForecast, BySlides, Outstanding

RULE = ByForecast(most=10, finish_by=time(7))


def outstanding(clock: str, slides: int, at_once: int = 0, speed: float | None = 1.0) -> Outstanding:
    """Slides of 100 fields at that hour."""
    return Outstanding(after_noon(time.fromisoformat(clock)), slides, 100 * slides, at_once, 100 * at_once, speed)


@pytest.mark.parametrize(
    ("clock", "slides", "at_once", "speed", "expected"),
    [
        ("20:00", 0, 0, 1.0, 0),
        ("20:00", 1, 0, 1.0, 1),
        ("07:00", 1000, 0, 1.0, 2),  # 100,000 fields in 80 % of 24 h: 1.4
        ("19:00", 1000, 0, 1.0, 3),  # of 12 h: 2.9
        ("01:00", 1000, 0, 1.0, 6),  # of 6 h: 5.8
        ("01:00", 1000, 0, 2.0, 3),
        ("06:59", 1000, 0, 1.0, 10),  # at most so many
        ("19:00", 1000, 1, 1.0, 3),
        ("19:00", 1000, 20, 1.0, 4),  # 2,000 fields in ten minutes: 3.3
        ("19:00", 20, 20, 0.01, 10),
        ("19:00", 5, 5, 0.01, 5),  # no more than slides
        ("07:00", 1000, 1000, 1.0, 10),
        ("20:00", 10, 0, None, 3),  # nothing measured: four slides a worker
    ],
)
def test_workers_by_forecast(clock: str, slides: int, at_once: int, speed: float | None, expected: int) -> None:
    assert RULE.wanted(outstanding(clock, slides, at_once, speed)) == expected


def test_the_last_hour_at_which_a_night_should_have_ended() -> None:
    seven = after_noon(time(7))
    assert RULE.last_due(seven - 1) == seven - 86_400
    assert RULE.last_due(seven) == seven


def followed(slides: list[int], most: int = 40) -> list[int]:
    """The replicas at each poll."""
    scaler = Autoscaler(BySlides(most))
    return [scaler.follow(Outstanding(POLL_S * n, count, 0, 0, 0, None)) for n, count in enumerate(slides)]


def test_the_first_worker_and_then_no_more_than_kubernetes_adds() -> None:
    assert followed([0, 400, 400, 400, 400, 400, 400]) == [0, 1, 5, 10, 20, 40, 40]


def test_workers_stay_for_a_while_and_the_last_goes_after_the_cooldown() -> None:
    replicas = followed([40] * 5 + [4] * 20 + [0] * 25)
    assert replicas[4] == 10
    assert replicas[5:12] == [10] * 7  # two minutes since ten were asked for
    assert replicas[13] == 1
    assert replicas[25 : 25 + 19] == [1] * 19
    assert replicas[-1] == 0


def test_a_tenth_more_or_less_changes_nothing() -> None:
    assert followed([80, 80, 80, 80, 80, 84, 92]) == [1, 5, 10, 20, 20, 20, 23]
