"""A night played through: slides arrive, workers take them, and each passes its stations."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

import simpy

from services.capacity.nights import DAY_S, Night, Slide
from services.capacity.rates import Cost, Rates
from services.capacity.scaling import POLL_S, Always, Autoscaler, Outstanding, Rule
from services.capacity.stations import Station

STATIONS: Final = ("triton", "postgres", "store", "control")
ROLES: Final = ("worker", *STATIONS)
_SAMPLE_S: Final = 300.0
_RECENT: Final = 200  # ended slides by which a worker's speed is told, as in operations.forecast
_IN_FLIGHT: Final = 4  # requests of a slide at once; on a GPU they come together in one batch

Events = simpy.events.ProcessGenerator


@dataclass(frozen=True, slots=True)
class Site:
    """What the night is run on.

    `servers` of each station but the workers: of Triton GPUs with `on_gpu`, else cores, as of the others. A worker has
    a core alone, and takes `worker_starts_s` from its order to its first slide. `one_machine`: all share so many cores,
    and no other number is asked.
    """

    servers: Mapping[str, float]
    on_gpu: bool = False
    worker_starts_s: float = 30.0
    one_machine: float | None = None

    def triton_cost(self, rates: Rates) -> Cost:
        """What a slide costs Triton here."""
        return rates.triton_gpu if self.on_gpu else rates.triton_cpu

    def servers_of(self, role: str) -> float:
        """Servers of a station; of workers, whose number is for a rule to say, without end."""
        return self.one_machine or self.servers.get(role, math.inf)


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of the night: seconds after noon; slides that wait; workers that are paid."""

    at: float
    waiting: int
    workers: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds within which half of the slides were served, 95 of 100, and all."""

    half: float
    most: float
    all: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """Of at least one slide."""
        ordered = sorted(seconds)
        return cls(ordered[len(ordered) // 2], ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1])


@dataclass(frozen=True, slots=True)
class Played:
    """How a night went: `finished` is when its last slide was committed, in seconds after noon.

    `used` is the share of each station that was at work while slides waited; where none ever waited, from the first
    slide to the last. Of workers it is their processors, not their waiting for others. `waits` is from a slide's
    arrival to its start; `urgent`, of urgent slides alone, to its result.
    """

    finished: float
    used: Mapping[str, float]
    worker_hours: float
    most_workers: int
    waits: Spread
    urgent: Spread | None
    samples: tuple[Sample, ...]

    @property
    def bottleneck(self) -> str:
        """The station that was used most."""
        return max(self.used, key=lambda role: self.used[role])


def play(night: Night, rates: Rates, site: Site, rule: Rule) -> Played:
    """Play a night of at least one slide until all are committed. Nothing is drawn: the same night ends the same."""
    return _Playing(night, rates, site, rule).run()


class _Playing:
    """The night while it is played."""

    def __init__(self, night: Night, rates: Rates, site: Site, rule: Rule) -> None:
        self.night, self.site, self.rule, self.scaler = night, site, rule, Autoscaler(rule)
        self.env = simpy.Environment(initial_time=night.slides[0].arrives)
        self.costs = {"worker": rates.worker, "triton": site.triton_cost(rates), "postgres": rates.postgres,
                      "store": rates.store, "control": rates.control}  # fmt: skip
        machine = Station(self.env, site.one_machine) if site.one_machine else None
        self.stations = {role: machine or Station(self.env, site.servers_of(role)) for role in ROLES}
        self.waiting: list[tuple[bool, int, Slide]] = []
        self.open: dict[int, Slide] = {}
        self.unended = len(night.slides)
        self.fields = self.slides_at_once = self.fields_at_once = 0
        self.due = -math.inf  # slides of before are late
        self.running = self.starting = 0
        self.ready = self.most = rule.workers if isinstance(rule, Always) else 0
        # The nights before count until slides of this one have ended: as if their workers had waited for nothing.
        alone = sum(self.costs["worker"].of(slide) for slide in night.slides)
        usual = (night.fields / len(night.slides), alone / len(night.slides))
        self.recent = deque([usual] * _RECENT, maxlen=_RECENT)
        self.waits: list[float] = []
        self.urgent: list[float] = []
        self.samples: list[Sample] = []
        self.finished = 0.0
        self.use = _Use(self.stations, site)

    def run(self) -> Played:
        """From the first slide's arrival until the last is committed, and the last worker that is not kept has gone."""
        for process in (self._arrivals(), self._scaling(), self._sampling()):
            self.env.process(process)
        self.env.run()
        return Played(
            finished=self.finished,
            used=self.use.shares(),
            worker_hours=self._paid_s() / 3600,
            most_workers=self.most,
            waits=Spread.of(self.waits),
            urgent=Spread.of(self.urgent) if self.urgent else None,
            samples=tuple(self.samples),
        )

    def _paid_s(self) -> float:
        if isinstance(self.rule, Always):
            return self.rule.workers * DAY_S * math.ceil(self.finished / DAY_S)
        return self.use.paid_s

    def _arrivals(self) -> Events:
        for number, slide in enumerate(self.night.slides):
            if slide.arrives > self.env.now:
                yield self.env.timeout(slide.arrives - self.env.now)
            self.open[number] = slide
            self.fields += slide.fields
            self._count_at_once(slide, 1)
            heappush(self.waiting, (not slide.urgent, number, slide))
            self._begin_slides()

    def _begin_slides(self) -> None:
        """As many as there are workers without one; urgent ones first, then in the order of arrival."""
        while self.waiting and self.running < self.ready:
            _, number, slide = heappop(self.waiting)
            self.running += 1
            self.waits.append(self.env.now - slide.arrives)
            self.env.process(self._slide(number, slide))
        self.use.count(self.env.now, self.ready, self.starting, slides_wait=bool(self.waiting))

    def _slide(self, number: int, slide: Slide) -> Events:
        """Fields, crops and the networks overlap; the rows are written when all have answered."""
        began = self.env.now
        requests = 1 if self.site.on_gpu else _IN_FLIGHT
        yield self.env.all_of(
            [self._serve("worker", slide), self._serve("store", slide)]
            + [self._serve("triton", slide, 1 / requests) for _ in range(requests)]
        )
        yield self._serve("postgres", slide)
        self._serve("control", slide)  # nobody waits for it
        self.finished = self.env.now
        self.recent.append((slide.fields, self.finished - began))
        if slide.urgent:
            self.urgent.append(self.finished - slide.arrives)
        del self.open[number]
        self.fields -= slide.fields
        self._count_at_once(slide, -1)
        self.unended -= 1
        self.running -= 1
        if self.ready > self.scaler.replicas:  # it was to go when its slide had ended
            self.ready -= 1
        self._begin_slides()

    def _serve(self, role: str, slide: Slide, share: float = 1.0) -> simpy.Event:
        return self.stations[role].serve(role, share * self.costs[role].of(slide))

    def _scaling(self) -> Events:
        while self.unended or (not isinstance(self.rule, Always) and self.ready + self.starting):
            if (due := self.rule.last_due(self.env.now)) > self.due:
                self.due = due
                self.slides_at_once = self.fields_at_once = 0
                for slide in self.open.values():
                    self._count_at_once(slide, 1)
            replicas = self.scaler.follow(self._outstanding())
            if (more := replicas - self.ready - self.starting) > 0:
                self.starting += more
                self.env.process(self._workers(more))
            elif more < 0:
                self.ready -= min(-more, self.ready - self.running)
            self.most = max(self.most, self.ready + self.starting)
            self._begin_slides()
            yield self.env.timeout(POLL_S)
        self.use.count(self.env.now, 0, 0, slides_wait=False)

    def _workers(self, more: int) -> Events:
        yield self.env.timeout(self.site.worker_starts_s)
        self.starting -= more
        self.ready = max(self.running, min(self.ready + more, self.scaler.replicas))
        self._begin_slides()

    def _count_at_once(self, slide: Slide, sign: int) -> None:
        if slide.urgent or slide.arrives < self.due:
            self.slides_at_once += sign
            self.fields_at_once += sign * slide.fields

    def _outstanding(self) -> Outstanding:
        seconds = sum(seconds for _, seconds in self.recent)
        speed = sum(fields for fields, _ in self.recent) / seconds if seconds else None
        at_once = (self.slides_at_once, self.fields_at_once)
        return Outstanding(self.env.now, len(self.open), self.fields, *at_once, speed)

    def _sampling(self) -> Events:
        while self.unended:
            self.samples.append(Sample(self.env.now, len(self.waiting), self.ready + self.starting))
            yield self.env.timeout(_SAMPLE_S)
        self.samples.append(Sample(self.env.now, 0, self.ready + self.starting))


class _Use:
    """What was used of the stations, and was there, in all and while slides waited; and what workers were paid."""

    def __init__(self, stations: Mapping[str, Station], site: Site) -> None:
        self.stations, self.site = stations, site
        self.at: float | None = None
        self.before = dict.fromkeys(ROLES, 0.0)
        self.paid = self.ready = 0
        self.wait = False
        self.paid_s = 0.0
        self.used = {wait: dict.fromkeys(ROLES, 0.0) for wait in (False, True)}
        self.there = {wait: dict.fromkeys(ROLES, 0.0) for wait in (False, True)}

    def count(self, now: float, ready: int, starting: int, *, slides_wait: bool) -> None:
        """From now on there are so many workers, and slides wait or not."""
        changed = (ready, starting + ready, slides_wait) != (self.ready, self.paid, self.wait)
        if self.at is not None and changed:
            passed = now - self.at
            self.paid_s += self.paid * passed
            for role in ROLES:
                used = self.stations[role].used_s(role)
                self.used[self.wait][role] += used - self.before[role]
                self.before[role] = used
                alone = role == "worker" and not self.site.one_machine
                self.there[self.wait][role] += passed * (self.ready if alone else self.site.servers_of(role))
        if self.at is None or changed:
            self.at, self.ready, self.paid, self.wait = now, ready, starting + ready, slides_wait

    def shares(self) -> dict[str, float]:
        """Of what was there, while slides waited; where none ever did, in all."""
        wait = any(self.used[True].values())
        return {role: self.used[wait][role] / there if (there := self.there[wait][role]) else 0.0 for role in ROLES}
