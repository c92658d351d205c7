"""Nights that are played: nothing is lost, the same night ends the same, and the bottleneck is where it must be."""

import time as clocks
from dataclasses import replace
from datetime import time

import pytest

from services.capacity.advice import Prices, Year, advise
from services.capacity.nights import Habits, Night, Slide, after_noon, draw_night, on_the_clock
from services.capacity.rates import Cost, Rates
from services.capacity.scaling import Always, ByForecast, BySlides
from services.capacity.simulation import STATIONS, Site, play

MORNING = time(7)
WIDE = Site(dict.fromkeys(STATIONS, 1000.0))
RATES = Rates.read()


def costs(**seconds: float) -> Rates:
    """Each station costs so many seconds a slide."""
    names = {"worker", "triton_cpu", "triton_gpu", "postgres", "store", "control"}
    return Rates(**{name: Cost(slide=seconds.get(name, 0), source="") for name in names}, cell_bytes=1000)  # type: ignore[arg-type]


def at_once(slides: int, **changed: object) -> Night:
    """So many slides, all at 20:00."""
    return Night([replace(Slide(8 * 3600, 0, 20, 240, 10.0), **changed) for _ in range(slides)])  # type: ignore[arg-type]


def test_a_slide_alone_takes_its_longest_station_and_then_its_rows() -> None:
    night, rates = at_once(1), costs(worker=10, triton_cpu=12, store=3, postgres=2, control=100)
    assert play(night, rates, WIDE, Always(1)).finished == pytest.approx(8 * 3600 + 10 + 2)  # four requests, 3 s each
    assert play(night, rates, replace(WIDE, on_gpu=True), Always(1)).finished == pytest.approx(8 * 3600 + 10 + 2)
    one = Site({**WIDE.servers, "triton": 0.5})
    assert play(night, rates, one, Always(1)).finished == pytest.approx(8 * 3600 + 24 + 2)


def test_one_machine_does_everything_with_the_same_cores() -> None:
    night, rates = at_once(10), costs(worker=1, triton_cpu=4, postgres=0.5)
    machine = Site({}, one_machine=2)
    played = play(night, rates, machine, Always(2))
    assert played.finished - 8 * 3600 == pytest.approx(10 * 5.5 / 2, rel=0.05)
    assert sum(played.used.values()) == pytest.approx(1, abs=0.05)
    assert played.used["triton"] == pytest.approx(4 / 5.5, abs=0.05)


@pytest.mark.parametrize(
    ("servers", "workers", "expected"),
    [
        ({}, 2, "worker"),
        ({"triton": 1}, 50, "triton"),
        ({"postgres": 0.1}, 50, "postgres"),
        ({"store": 0.2}, 50, "store"),
    ],
)
def test_the_bottleneck_is_the_station_that_is_short(servers: dict[str, float], workers: int, expected: str) -> None:
    played = play(at_once(200), RATES, Site({**WIDE.servers, **servers}), Always(workers))
    assert played.bottleneck == expected
    assert 0.85 < played.used[expected] <= 1.0001


@pytest.mark.parametrize("rule", [Always(3), BySlides(3), ByForecast(3, MORNING)])
def test_the_same_night_ends_the_same(rule: Always | BySlides | ByForecast) -> None:
    habits = Habits(labs=20, urgent=0.2)
    assert draw_night(habits, 5) == draw_night(habits, 5) != draw_night(habits, 6)
    first, second = (play(draw_night(habits, 5), RATES, WIDE, rule) for _ in range(2))
    assert first == second
    work = sum(RATES.worker.of(slide) for slide in draw_night(habits, 5).slides) / 3600
    assert first.worker_hours >= work


def test_more_servers_end_no_later() -> None:
    night = draw_night(Habits(labs=30), 2)
    ends = [play(night, RATES, Site({**WIDE.servers, "triton": n}), Always(8)).finished for n in (0.2, 0.5, 1, 4)]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] > ends[-1]


def test_by_forecast_ends_in_time_with_fewer_workers() -> None:
    night = draw_night(Habits(labs=300, slides=40, fields=400, urgent=0.02), 3)
    slides, forecast = (play(night, RATES, WIDE, rule) for rule in (BySlides(64), ByForecast(64, MORNING)))
    assert slides.finished < forecast.finished <= after_noon(MORNING)
    assert forecast.most_workers < slides.most_workers / 2
    assert forecast.worker_hours < slides.worker_hours
    assert forecast.urgent is not None
    assert forecast.urgent.most < 660  # ten minutes, and a worker's start


def test_what_is_late_is_done_at_once() -> None:
    late = Night([replace(slide, arrives=after_noon(time(6, 59))) for slide in at_once(400).slides])
    played = play(late, RATES, WIDE, ByForecast(4, MORNING))
    assert after_noon(MORNING) < played.finished < after_noon(time(9))


def test_the_advice_is_played_and_says_when_no_night_can_end() -> None:
    night = draw_night(Habits(labs=2000), 1)
    advice = advise(night, RATES, MORNING, on_gpu=False)
    assert advice.ends_in_time
    assert play(night, RATES, advice.site, ByForecast(advice.workers, MORNING)).finished <= after_noon(MORNING)
    assert advice.triton_cores > advice.triton_gpus == 1
    hopeless = Night([Slide(after_noon(MORNING) - 1, 0, 20, 240, 10.0)])
    assert not advise(hopeless, RATES, MORNING, on_gpu=True).ends_in_time


def test_a_year_and_its_price() -> None:
    night = at_once(100)
    year = Year.of(night, costs())
    assert (year.images_gb, year.rows_gb) == (pytest.approx(365), pytest.approx(365 * 0.024))
    site = Site({"triton": 2, "postgres": 1, "store": 1, "control": 1}, on_gpu=True)
    played = play(night, costs(worker=36), site, Always(1))
    cost = Prices(core_hour=1, gpu_hour=10, gb_month=0).of_year(played, site, year)
    assert cost["workers"] == pytest.approx(365 * 24)
    assert cost["triton"] == pytest.approx(365 * 24 * 2 * 10)
    assert cost["postgres, store, control"] == pytest.approx(365 * 24 * 3)
    assert cost["all"] == pytest.approx(sum(list(cost.values())[:-1]))
    assert not Prices().any


def test_a_thousand_labs_take_seconds_of_processor() -> None:
    night = draw_night(Habits(labs=1000), 1)
    begun = clocks.process_time()
    play(night, RATES, WIDE, ByForecast(64, MORNING))
    assert clocks.process_time() - begun < 8


def test_clocks() -> None:
    assert after_noon(time(12)) == 0
    assert on_the_clock(after_noon(time(7, 30))) == "07:30"
    assert on_the_clock(86400 + 60) == "12:01 (+1 days)"
