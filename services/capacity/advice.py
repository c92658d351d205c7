"""How much of each station ends a night by an hour, what it stores in a year, and what that costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from typing import Final

from services.capacity.nights import Night, after_noon
from services.capacity.rates import Cost, Rates
from services.capacity.scaling import ByForecast
from services.capacity.simulation import Played, Site, play

NIGHTS: Final = 365
_RESERVE: Final = 0.8  # of the time that is left, as for workers
_TRIES: Final = 12
_MORE: Final = 1.15
_GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Advice:
    """What ends the night by the hour: most workers at once, and the servers of the other stations.

    `triton_cores` and `triton_gpus` are the two ways to serve the networks; the site has one of them. `ends_in_time`:
    it was played, and does.
    """

    workers: int
    site: Site
    triton_cores: int
    triton_gpus: int
    ends_in_time: bool


@dataclass(frozen=True, slots=True)
class Year:
    """What so many like nights store, in gigabytes, if nothing is deleted."""

    images_gb: float
    rows_gb: float

    @classmethod
    def of(cls, night: Night, rates: Rates) -> "Year":
        """Of 365 nights like this one."""
        return cls(NIGHTS * night.megabytes * 1e6 / _GB, NIGHTS * night.cells * rates.cell_bytes / _GB)


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour of a core and of a GPU costs, and a gigabyte kept for a month, in any currency."""

    core_hour: float = 0.0
    gpu_hour: float = 0.0
    gb_month: float = 0.0

    @property
    def any(self) -> bool:
        """One at least is known."""
        return bool(self.core_hour or self.gpu_hour or self.gb_month)

    def of_year(self, played: Played, site: Site, year: Year) -> Mapping[str, float]:
        """Of 365 like nights, the stations but the workers being there day and night; of storage, while it fills."""
        hours = 24 * NIGHTS
        networks = self.gpu_hour if site.on_gpu else self.core_hour
        cost = {
            "workers": NIGHTS * played.worker_hours * self.core_hour,
            "triton": hours * site.servers["triton"] * networks,
            "postgres, store, control": hours
            * self.core_hour
            * sum(count for role, count in site.servers.items() if role != "triton"),
            "storage": (year.images_gb + year.rows_gb) / 2 * 12 * self.gb_month,
        }
        return {**cost, "all": sum(cost.values())}


def advise(night: Night, rates: Rates, finish_by: time, *, on_gpu: bool) -> Advice:
    """The least of each station, tried by playing the night and adding to the bottleneck until it ends in time."""
    due = after_noon(finish_by)

    def at_least(cost: Cost) -> int:
        return max(1, math.ceil(_servers(night, cost, due)))

    cores, gpus = at_least(rates.triton_cpu), at_least(rates.triton_gpu)
    servers = {
        "triton": gpus if on_gpu else cores,
        "postgres": at_least(rates.postgres),
        "store": at_least(rates.store),
        "control": at_least(rates.control),
    }
    workers = at_least(rates.worker)
    for _ in range(_TRIES):
        site = Site(dict(servers), on_gpu)
        played = play(night, rates, site, ByForecast(workers, finish_by))
        if played.finished <= due:
            break
        if played.bottleneck == "worker":
            workers = _more(workers)
        else:
            servers[played.bottleneck] = _more(servers[played.bottleneck])
    return Advice(workers, site, cores, gpus, played.finished <= due)


def _more(servers: int) -> int:
    return max(servers + 1, math.ceil(servers * _MORE))


def _servers(night: Night, cost: Cost, due: float) -> float:
    """Servers that do, from each moment on, what is still to come in the time that is left, with a reserve."""
    ahead, servers = 0.0, 0.0
    for slide in reversed(night.slides):
        ahead += cost.of(slide)
        servers = max(servers, ahead / (_RESERVE * max(due - slide.arrives, 1.0)))
    return servers
