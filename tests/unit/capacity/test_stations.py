"""Servers that jobs share: when each ends, against what was worked out by hand, and that no work is lost."""

import math

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from services.capacity.stations import Station


def ends(servers: float, jobs: list[tuple[float, float]]) -> tuple[list[float], Station]:
    """When each job `(comes, seconds)` ends."""
    env = simpy.Environment()
    station = Station(env, servers)
    ended = [math.nan] * len(jobs)

    def job(number: int, comes: float, seconds: float) -> simpy.events.ProcessGenerator:
        yield env.timeout(comes)
        yield station.serve("triton", seconds)
        ended[number] = env.now

    for number, (comes, seconds) in enumerate(jobs):
        env.process(job(number, comes, seconds))
    env.run()
    return ended, station


@pytest.mark.parametrize(
    ("servers", "jobs", "expected"),
    [
        (1, [(0, 4)], [4]),
        (2, [(0, 4), (0, 2)], [4, 2]),  # one each
        (1, [(0, 4), (0, 2)], [6, 4]),  # halves until 4
        (1, [(0, 4), (2, 1)], [5, 4]),  # the second comes when half of the first is done
        (2, [(0, 3), (0, 3), (0, 3)], [4.5, 4.5, 4.5]),
        (0.5, [(0, 1)], [2]),
        (math.inf, [(0, 5), (1, 5)], [5, 6]),
        (1, [(0, 10), (1, 10), (2, 1)], [20, 21, 5]),
    ],
)
def test_jobs_share_the_servers(servers: float, jobs: list[tuple[float, float]], expected: list[float]) -> None:
    ended, _ = ends(servers, jobs)
    if expected[0] == 20:  # 1 alone; halves from 1 to 2; thirds of which the last takes 3; halves; the second alone
        assert ended[2] == pytest.approx(5)
        assert ended[0] == pytest.approx(20)
        assert ended[1] == pytest.approx(21)
    else:
        assert ended == pytest.approx(expected)


@given(
    st.floats(0.5, 5),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 20)), min_size=1, max_size=12),
)
def test_all_that_was_asked_is_done_and_no_faster_than_can_be(servers: float, jobs: list[tuple[float, float]]) -> None:
    ended, station = ends(servers, jobs)
    asked = sum(seconds for _, seconds in jobs)
    assert station.used_s("triton") == pytest.approx(asked)
    for (comes, seconds), end in zip(jobs, ended, strict=True):
        assert end >= comes + seconds / min(1, servers) - 1e-6
    assert max(ended) >= min(comes for comes, _ in jobs) + asked / servers - 1e-6
    assert max(ended) <= max(comes for comes, _ in jobs) + asked / min(1, servers) + 1e-6
