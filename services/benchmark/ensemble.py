"""Crops a second of the ensemble in Triton, and of its networks alone at the same batch, in turns in one run."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.benchmark.alone import networks_alone
from services.benchmark.spread import machine, spread
from services.benchmark.stack import BenchmarkFailed
from services.inference.networks import Networks
from services.local.child import Child, ServiceState
from services.local.installation import prepare_installation
from services.local.settings import LocalSettings
from services.local.triton import find_environment, require_gpu, triton_server
from triton_models.forms.form import best_form
from triton_models.layout.repository import lay_out_repository

_WARM_REQUESTS: Final = 16
_TIMEOUT_S: Final = 120.0
_DIFFERENT: Final = 256  # crops of noise; what they show changes nothing of the speed
_PATIENCE_S: Final = 300.0


def measure_ensemble(
    home: Path,
    release_dir: Path,
    local: LocalSettings,
    *,
    batch: int,
    in_flight: int,
    crops: int,
    repeats: int,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the form that `local` names, `repeats` times both; Triton runs alone, without the rest of the stack.

    Args:
        home: folder of its own.
        release_dir: the release.
        local: Triton's environment and the form.
        batch: crops a request, and in a batch of the networks alone.
        in_flight: requests under way.
        crops: how many are sent in a repeat.
        repeats: how often.
        tell: called with what is being done.

    Raises:
        GpuMissing: the form needs a GPU.
        ReleaseBroken, FormMissing, FormBroken: the folder is no release, or it has not the form.
        BenchmarkFailed: the server does not start, or a network answers nonsense.
    """
    environment = find_environment(local.triton_env)
    require_gpu(environment, local.triton_form)
    about = machine()
    repository = home / "triton" / "repository"
    release = lay_out_repository(release_dir, repository, form=local.triton_form or best_form(release_dir))
    installation = prepare_installation(home, "rclone", minio_available=False)
    side = release.crop_px
    noise = np.random.default_rng(1).integers(0, 256, (_DIFFERENT, side, side, 3), np.uint8)
    given = np.resize(noise, (crops, side, side, 3))
    child = Child(triton_server(installation, environment), installation.logs / "triton.log", {"PATH": "/usr/bin:/bin"})
    together: list[float] = []
    alone: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="morphbatch-bench-") as scratch, _running(child):
        np.save(Path(scratch) / "crops.npy", given)
        endpoint = f"127.0.0.1:{installation.ports['triton_grpc']}"
        networks = Networks(endpoint, batch=batch, in_flight=in_flight, timeout_s=_TIMEOUT_S)
        try:
            served = networks.served_release()
            networks.classify(given[: _WARM_REQUESTS * batch])
            for number in range(1, repeats + 1):
                tell(f"repeat {number} of {repeats}: the ensemble")
                started = time.perf_counter()
                networks.classify(given)
                together.append(len(given) / (time.perf_counter() - started))
                tell(f"repeat {number} of {repeats}: the networks alone")
                python = environment.folder / "bin" / "python"
                alone.append(networks_alone(python, repository, Path(scratch) / "crops.npy", batch))
        finally:
            networks.close()
    rates = [run["crops"] / run["seconds"] for run in alone]
    return {
        "kind": "ensemble",
        "machine": about,
        "release": release.id,
        "form": served.form,
        "crop_px": release.crop_px,
        "crops": crops,
        "batch": batch,
        "in_flight": in_flight,
        "repeats": repeats,
        "ensemble": {"crops_per_s": spread(together)},
        "networks_alone": {
            "crops_per_s": spread(rates),
            "streams": alone[0]["streams"],
            "sub_batch": alone[0]["sub_batch"],
        },
        "ensemble_to_networks_alone": spread([a / b for a, b in zip(together, rates, strict=True)]),
    }


@contextmanager
def _running(triton: Child) -> Iterator[None]:
    """The server, ready; gone at the end."""
    triton.start()
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while triton.state is not ServiceState.READY:
            if triton.state is ServiceState.CRASHED or time.monotonic() > deadline:
                raise BenchmarkFailed(f"Triton {triton.trouble or 'is not ready'}: {triton.log_tail(5)}")
            time.sleep(0.25)
            triton.look()
        yield
    finally:
        triton.stop()
