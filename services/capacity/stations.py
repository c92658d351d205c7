"""Stations that slides share: so many servers, each job on one at most, all jobs at the same speed."""

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

import simpy

_NEVER: Final = float("inf")
_WHOLE: Final = 1e-9  # seconds of work: less is nothing


@dataclass(slots=True)
class Station:
    """`servers` shared by the jobs that are there (processor sharing).

    With no more jobs than servers each has one alone; with more, all go equally slower. What a job has had of the
    server is the same for all that are there, so the one that ends next is the head of a heap, and a job costs two
    events however many there are.
    """

    env: simpy.Environment
    servers: float
    _used_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _there: Counter[str] = field(default_factory=Counter)
    _had: float = 0.0
    _at: float = 0.0
    _wakes: float = _NEVER
    _jobs: list[tuple[float, int, str, simpy.Event]] = field(default_factory=list)
    _number: int = 0

    def serve(self, role: str, seconds: float) -> simpy.Event:
        """A job that takes `seconds` of one server, on account of `role`; the event that it has ended."""
        self._advance()
        done = self.env.event()
        self._number += 1
        heapq.heappush(self._jobs, (self._had + seconds, self._number, role, done))
        self._there[role] += 1
        self._wake_for_next()
        return done

    def used_s(self, role: str) -> float:
        """Seconds of servers that jobs of `role` have had until now."""
        self._advance()
        return self._used_s[role]

    def _rate(self) -> float:
        return min(1.0, self.servers / len(self._jobs)) if self._jobs else 0.0

    def _advance(self) -> None:
        passed = self.env.now - self._at
        if passed > 0:
            rate = self._rate()
            self._had += rate * passed
            for role, jobs in self._there.items():
                self._used_s[role] += rate * jobs * passed
        self._at = self.env.now

    def _wake_for_next(self) -> None:
        if not self._jobs:
            return
        ends = self.env.now + max(0.0, self._jobs[0][0] - self._had) / self._rate()
        # A wake that comes too early, since jobs have come meanwhile, sets the next: so none has to be called off.
        if ends < self._wakes:
            self._wakes = ends
            event = self.env.timeout(ends - self.env.now)
            assert event.callbacks is not None  # noqa: S101 - it has not happened yet
            event.callbacks.append(self._wake)

    def _wake(self, event: simpy.Event) -> None:
        del event
        self._advance()
        if self.env.now >= self._wakes:
            self._wakes = _NEVER
        while self._jobs and self._jobs[0][0] - self._had <= _WHOLE:
            _, _, role, ended = heapq.heappop(self._jobs)
            self._there[role] -= 1
            ended.succeed()
        self._wake_for_next()
