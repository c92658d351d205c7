"""Crops a second of the whole service, of its networks alone, and of a plain PyTorch loop, in turns in one run."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.atomic import write_text
from services.benchmark.alone import networks_alone, run_program
from services.benchmark.deliveries import Fields, lay_out
from services.benchmark.spread import machine, spread
from services.benchmark.stack import BenchmarkFailed, BenchStack, Run, bench_stack
from services.imaging.crops import crop_cells
from services.imaging.decoding.decode import decode_field
from services.imaging.framing import specimen_of
from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, Microns, Pixels
from services.inference.networks import Networks
from services.local.service import CHECKOUT
from services.local.settings import load_local_settings
from services.local.triton import find_environment
from services.releases.schema import MEMBERS
from services.releases.served import ServedRelease
from triton_models.layout.served_here import SHIPPED

SLIDES: Final = 8
_PLAIN_CELLS: Final = 60  # of the plain loop; it does the same a cell however many there are

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What the service's own imaging makes of the fields. `boxes` a field."""

    crops: NDArray[np.uint8]
    boxes: list[list[list[int]]]


def measure_e2e(
    home: Path, fields: Fields, repeats: int, torch_environment: Path | None, tell: Tell = lambda _: None
) -> dict[str, Any]:
    """Measure `repeats` times, each time all three, for two releases; the document of `docs/performance.md`.

    The shipped release, in the form that is served of it here, has small crops and quick networks, so that everything
    around them shows; the untrained one has crops of the size of the paper's.

    Raises:
        FieldRefused: a field is not an image that the service takes.
        BenchmarkFailed: the service classified other cells than were cut beforehand.
    """
    for path in fields.paths:  # before a stack is started for them
        _decoded(path)
    about = machine()
    measured = []
    for name, release in (("shipped", SHIPPED), ("untrained", None)):
        tell(f"the {name} release")
        measured.append(_of_release(home, release, fields, repeats, torch_environment, tell))
    return {
        "kind": "e2e",
        "machine": about,
        "fields": {"count": len(fields.paths), "source": fields.source, "um_per_px": fields.um_per_px},
        "slides": min(SLIDES, len(fields.paths)),
        "repeats": repeats,
        "releases": measured,
    }


def _of_release(
    home: Path,
    release_dir: Path | None,
    fields: Fields,
    repeats: int,
    torch_environment: Path | None,
    tell: Tell,
) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="morphbatch-bench-") as name,
        bench_stack(home, release=release_dir) as stack,
    ):
        scratch = Path(name)
        release = _served(stack)
        tell(f"cutting the cells of {len(fields.paths)} fields")
        cut = _cut(fields, release)
        np.save(scratch / "crops.npy", cut.crops)
        python = find_environment(load_local_settings().triton_env).folder / "bin" / "python"
        batch, in_flight = stack.settings.inference_batch, stack.settings.inference_in_flight
        plain = _PlainLoop(stack, fields, cut, release, scratch, torch_environment)
        service: list[Run] = []
        alone: list[dict[str, Any]] = []
        loop: list[dict[str, Any]] = []
        started = time.strftime("%Y%m%d-%H%M%S")
        slides = min(SLIDES, len(fields.paths))
        tell("warming up")
        warm = lay_out(fields.paths[: 2 * slides], scratch / "warm", slides)
        stack.run(warm, f"{started}-warm", fields.um_per_px)
        delivery = lay_out(fields.paths, scratch / "delivery", slides)
        for number in range(1, repeats + 1):
            tell(f"repeat {number} of {repeats}: the service")
            service.append(stack.run(delivery, f"{started}-{number}", fields.um_per_px))
            if service[-1].cells != len(cut.crops):
                raise BenchmarkFailed(f"the service classified {service[-1].cells} cells, {len(cut.crops)} were cut")
            tell(f"repeat {number} of {repeats}: the networks alone")
            alone.append(networks_alone(python, stack.repository, scratch / "crops.npy", batch))
            if plain.missing is None:
                tell(f"repeat {number} of {repeats}: the plain loop")
                loop.append(plain.run())
    return {
        "release": release.release_id,
        "form": release.form,
        "crop_px": release.crop_px,
        "crops": len(cut.crops),
        "service": {
            **_rates([run.cells for run in service], [run.seconds for run in service]),
            "worker_processes": stack.settings.worker_concurrency,
            "inference_batch": batch,
            "inference_in_flight": in_flight,
            "stages_s": [dict(run.stages) for run in service],
            "cpu_s": [dict(run.cpu) for run in service],
            "cores_s": [dict(run.cores) for run in service],
        },
        "networks_alone": {
            **_rates([run["crops"] for run in alone], [run["seconds"] for run in alone]),
            "streams": alone[0]["streams"],
            "sub_batch": alone[0]["sub_batch"],
            "cpu_s": [run["cpu_s"] for run in alone],
            "others_s": [run["others_s"] for run in alone],
            "seconds_each": {
                member: spread([run["seconds_each"][k] for run in alone]) for k, member in enumerate(MEMBERS)
            },
        },
        "plain_loop": _rates([run["crops"] for run in loop], [run["seconds"] for run in loop])
        | {"crops": loop[0]["crops"], "torch": loop[0]["torch"]}
        if loop
        else None,
        "plain_loop_missing": plain.missing,
        "service_to_networks_alone": spread(_ratios(service, alone)),
        "service_to_plain_loop": spread(_ratios(service, loop)) if loop else None,
    }


def _rates(crops: list[int], seconds: list[float]) -> dict[str, Any]:
    return {
        "crops_per_s": spread([n / s for n, s in zip(crops, seconds, strict=True)]),
        "seconds": spread(seconds),
    }


def _ratios(service: list[Run], other: list[dict[str, Any]]) -> list[float]:
    """Of each repeat's own two measurements, which the machine's mood hit alike."""
    return [(a.cells / a.seconds) / (b["crops"] / b["seconds"]) for a, b in zip(service, other, strict=True)]


def _served(stack: BenchStack) -> ServedRelease:
    line = Networks(stack.settings.triton_endpoint, batch=1, in_flight=1, timeout_s=60)
    try:
        return line.served_release()
    finally:
        line.close()


def _cut(fields: Fields, release: ServedRelease) -> _Cut:
    cv2.setNumThreads(1)  # as in the worker
    crops, boxes = [], []
    for path in fields.paths:
        specimen = specimen_of(_decoded(path), fields.um_per_px)
        pixels = specimen.pixels
        usable = measure_quality(pixels, fields.um_per_px).unusable is None
        heads = find_heads(pixels, fields.um_per_px, specimen.covered).heads if usable else ()
        found = [head.box for head in heads]
        boxes.append([list(box) for box in found])
        crops.append(
            crop_cells(
                pixels,
                found,
                um_per_px=fields.um_per_px,
                crop_um=Microns(release.crop_um),
                size_px=Pixels(release.crop_px),
            )
        )
    return _Cut(np.concatenate(crops), boxes)


def _decoded(path: Path) -> RGB:
    return decode_field(path.read_bytes(), path.name, max_bytes=2**30, max_pixels=2**30).pixels


class _PlainLoop:
    """The plain loop, where there is an environment with torch; else `missing` says why not."""

    def __init__(
        self, stack: BenchStack, fields: Fields, cut: _Cut, release: ServedRelease, scratch: Path, folder: Path | None
    ) -> None:
        self._python = (folder or CHECKOUT / ".venv-train") / "bin" / "python"
        self._spec = scratch / "plain_loop.json"
        self.missing = self._why_not()
        spec = {
            "fields": [{"path": str(p), "boxes": b} for p, b in zip(fields.paths, cut.boxes, strict=True)],
            "side": release.crop_um / fields.um_per_px,
            "crop_px": release.crop_px,
            "dsn": stack.settings.database_url.replace("+psycopg2", ""),
            "cells": min(_PLAIN_CELLS, len(cut.crops)),
        }
        write_text(self._spec, json.dumps(spec), private=True)  # the password of the database is in it

    def run(self) -> dict[str, Any]:
        """`{"crops", "seconds", "torch"}`."""
        return run_program(self._python, "torch_loop.py", str(self._spec))

    def _why_not(self) -> str | None:
        try:
            subprocess.run([str(self._python), "-c", "import timm, torch, psycopg2"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no torch and timm in {self._python.parent.parent.name} ({type(error).__name__}): `make bench-env`"
        return None
