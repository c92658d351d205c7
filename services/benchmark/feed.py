"""How many fields and crops a second one core feeds to the networks, with Triton answering a constant.

Everything else is real: store, database, broker, the client and Triton's ensemble, and the crops are as large as those
of the shipped release. The slide worker's processes are held on one core, all others on the rest of them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import psutil

from services.benchmark.constant_model import write_constant_models
from services.benchmark.deliveries import Fields, lay_out
from services.benchmark.spread import machine, spread
from services.benchmark.stack import BenchStack, Run, bench_stack
from services.errors import ConfigurationError
from services.releases.schema import read_release
from triton_models.layout.served_here import SHIPPED
from triton_models.untrained.grow import build_untrained

SLIDES: Final = 8
Tell = Callable[[str], None]


class OneCoreOnly(ConfigurationError):
    """What one core prepares can only be measured where everything else runs on another."""

    reason = "one_core_only"


def measure_feed(home: Path, fields: Fields, repeats: int, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measure `repeats` batches of all `fields`; the document of `docs/performance.md`.

    Raises:
        OneCoreOnly: the machine has one core.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise OneCoreOnly("this machine has one core; measuring what one core prepares takes at least two")
    about = machine()
    with (
        tempfile.TemporaryDirectory(prefix="morphbatch-bench-") as name,
        bench_stack(home, write_constant_models, _release(Path(name) / "release")) as stack,
    ):
        scratch = Path(name)
        slides = min(SLIDES, len(fields.paths))
        started = time.strftime("%Y%m%d-%H%M%S")
        tell("warming up")
        warm = lay_out(fields.paths[: 2 * slides], scratch / "warm", slides)
        stack.run(warm, f"{started}-warm", fields.um_per_px)
        delivery = lay_out(fields.paths, scratch / "delivery", slides)
        worker = _hold_on_cores(stack, cores)
        try:
            runs: list[Run] = []
            used: list[float] = []
            for number in range(1, repeats + 1):
                tell(f"repeat {number} of {repeats}")
                before = _cpu_seconds(worker)
                runs.append(stack.run(delivery, f"{started}-{number}", fields.um_per_px))
                used.append(_cpu_seconds(worker) - before)
        finally:
            os.sched_setaffinity(0, cores)
    return {
        "kind": "feed",
        "machine": about,
        "fields": {"count": runs[0].fields, "source": fields.source, "um_per_px": fields.um_per_px},
        "slides": slides,
        "crop_px": read_release(SHIPPED).crop_px,
        "cells_per_field": round(runs[0].cells / runs[0].fields, 1),
        "repeats": repeats,
        "worker_processes": stack.settings.worker_concurrency,
        "fields_per_s": spread([run.fields / run.seconds for run in runs]),
        "crops_per_s": spread([run.cells / run.seconds for run in runs]),
        "core_used": spread([cpu / run.seconds for cpu, run in zip(used, runs, strict=True)]),
        "cpu_to_decode": spread([cpu / run.cpu["decode"] for cpu, run in zip(used, runs, strict=True)]),
        "cpu_ms_per_field": {
            "all": spread([1000 * cpu / run.fields for cpu, run in zip(used, runs, strict=True)]),
            **{
                stage: spread([1000 * run.cpu[stage] / run.fields for run in runs])
                for stage in sorted(runs[0].cpu, key=lambda stage: -runs[0].cpu[stage])
            },
        },
    }


def _release(folder: Path) -> Path:
    """A release in `folder` with the crops of the shipped one, and without its known answers: a constant is none."""
    shipped, grown = read_release(SHIPPED), build_untrained(folder)
    crops = shipped.model_dump(include={"crop_px", "crop_um", "minimum_crop_inside_share"})
    grown.model_copy(update={**crops, "id": f"{grown.id}-{shipped.crop_px}"}).write(folder)
    return folder


def _hold_on_cores(stack: BenchStack, cores: list[int]) -> list[psutil.Process]:
    """The slide worker on the first core, everything else of the stack, and this process, on the others."""
    top = psutil.Process(stack.pid("worker"))
    worker = [top, *top.children(recursive=True)]
    for process in psutil.Process().children(recursive=True):
        _hold(process, cores[:1] if process in worker else cores[1:])
    os.sched_setaffinity(0, cores[1:])
    return worker


def _hold(process: psutil.Process, cores: Iterable[int]) -> None:
    """Every thread of it; those that it starts from now on inherit."""
    for thread in process.threads():
        try:
            os.sched_setaffinity(thread.id, cores)
        except ProcessLookupError:  # it has ended meanwhile
            continue


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))
