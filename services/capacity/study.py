"""One question answered whole: a night under each rule, what ends it in time, what it stores and costs in a year."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import time
from typing import Any

from services.capacity.advice import Advice, Prices, Year, advise
from services.capacity.nights import Night
from services.capacity.rates import Rates
from services.capacity.scaling import Always, ByForecast, BySlides, Rule
from services.capacity.simulation import Played, Site, play


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: by when the night should end, and what is given of the site; None: as advised.

    `triton`, `postgres`, `store`: servers, in cores (Triton's in GPUs with `gpu`). `one_machine`: all share its cores.
    """

    finish_by: time
    gpu: bool = False
    workers: int | None = None
    triton: float | None = None
    postgres: float | None = None
    store: float | None = None
    one_machine: float | None = None

    def site(self, advice: Advice) -> Site:
        """As advised, but for what is given."""
        given = {"triton": self.triton, "postgres": self.postgres, "store": self.store}
        servers = {**advice.site.servers, **{role: count for role, count in given.items() if count}}
        return replace(advice.site, servers=servers, one_machine=self.one_machine)


@dataclass(frozen=True, slots=True)
class Study:
    """The answer. `cost` is empty where no price was given."""

    night: Night
    rates: Rates
    advice: Advice
    site: Site
    workers: int
    played: Mapping[str, Played]
    year: Year
    cost: Mapping[str, Mapping[str, float]]

    def document(self) -> dict[str, Any]:
        """As JSON: times in seconds after noon, money in the currency of the prices."""
        return {
            "slides": len(self.night.slides),
            "fields": self.night.fields,
            "cells": self.night.cells,
            "advice": asdict(self.advice),
            "played_on": {"workers": self.workers, **asdict(self.site)},
            "rules": {name: {**asdict(rule), "bottleneck": rule.bottleneck} for name, rule in self.played.items()},
            "year": asdict(self.year),
            "cost_of_a_year": dict(self.cost),
            "rates": self.rates.model_dump(),
        }


def study(night: Night, rates: Rates, asked: Asked, prices: Prices) -> Study:
    """Advise, and play the night under each rule on the site that is given or else advised."""
    advice = advise(night, rates, asked.finish_by, on_gpu=asked.gpu)
    site, most = asked.site(advice), asked.workers or advice.workers
    rules: dict[str, Rule] = {
        "by forecast": ByForecast(most, asked.finish_by),
        "by slides": BySlides(most),
        "always": Always(most),
    }
    played = {name: play(night, rates, site, rule) for name, rule in rules.items()}
    year = Year.of(night, rates)
    cost = {name: prices.of_year(rule, site, year) for name, rule in played.items()} if prices.any else {}
    return Study(night, rates, advice, site, most, played, year, cost)
