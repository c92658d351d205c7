"""Where the cores' time went during a measurement: each service, whoever else was at work, and idle."""

import os
from collections.abc import Mapping
from typing import Self

import psutil

_OWN = "benchmark"


class Cores:
    """Counts from where it is made: core-seconds of the services whose process ids are given, by name.

    `benchmark` is this process with all that it started besides them; `others` is whoever else runs on the machine,
    the kernel's own threads among them. Above about 1 in 50 of all, a neighbour was at work and the time is not ours.
    """

    def __init__(self, services: Mapping[str, int]) -> None:
        self._services = dict(services)
        self._before = self._now()

    @classmethod
    def without_services(cls) -> Self:
        """All that this process starts is `benchmark`."""
        return cls({})

    def spent(self) -> dict[str, float]:
        """Core-seconds since: by service, `benchmark`, `others` and `idle`."""
        now = self._now()
        return {name: round(seconds - self._before[name], 2) for name, seconds in now.items()}

    def _now(self) -> dict[str, float]:
        parts = {name: _of_tree(pid) for name, pid in self._services.items()}
        own = _of_tree(os.getpid())
        whole = psutil.cpu_times()
        busy = whole.user + whole.nice + whole.system + whole.irq + whole.softirq
        return {
            **parts,
            _OWN: own - sum(parts.values()),
            "others": busy - own,
            "idle": whole.idle + whole.iowait,
        }


def _of_tree(pid: int) -> float:
    """Processor seconds of a process and its descendants, those that have ended and were waited for included."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it ended just now, and is in its parent's account
        total += times.user + times.system + times.children_user + times.children_system
    return total
