"""Training runs that do not wait for one another: as many at once as there are cores, and memory on a GPU."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from services.errors import ConfigurationError
from triton_models.training.config import TrainingConfig, as_toml
from triton_models.training.data.dataset import LabelledImage
from triton_models.training.learning.checkpoint import LAST
from triton_models.training.learning.run import on_gpu
from triton_models.training.learning.train import CONFIG_NAME, RUN_NAME, train

_GPU_BYTES_A_RUN: Final = 8 * 2**30  # either network with batches of 64 crops of 128 px
console = Console(stderr=True)


class RunOfOtherSettings(ConfigurationError):
    """The folder holds a run with other data, weights or settings."""

    reason = "run_of_other_settings"


@dataclass(frozen=True, slots=True)
class Job:
    """A run of `train`: its arguments."""

    member: str
    config: TrainingConfig
    folder: Path
    part: tuple[Sequence[LabelledImage], Sequence[LabelledImage]] | None = None


class _Lines:
    """A line an epoch: bars of several processes would overwrite each other."""

    def __init__(self, what: str) -> None:
        self.what = what

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Steps are not shown."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch is done."""
        figures = ", ".join(
            f"{name} {row[name]:.3f}" for name in ("training_loss", "accuracy", "macro_f1") if name in row
        )
        console.print(f"{self.what}: epoch {row['epoch'] + 1:.0f}: {figures}", highlight=False, soft_wrap=True)


def train_each(jobs: Sequence[Job]) -> None:
    """Train every job into its folder, unless it was done; go on with one that was begun.

    Raises:
        RunOfOtherSettings: a folder holds a run that is not the job's.
        What a run raised, when those that ran beside it have ended; called again, it goes on from their checkpoints.
    """
    for job in jobs:
        begun = job.folder / CONFIG_NAME
        if begun.exists() and begun.read_text(encoding="utf-8") != as_toml(job.config):
            raise RunOfOtherSettings(f"{begun} belongs to another run; remove its folder or choose another")
    left = [job for job in jobs if not (job.folder / RUN_NAME).exists()]
    if not left:
        return
    with ProcessPoolExecutor(at_once(left[0].config), multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_train, job) for job in left]
        try:
            for run in running:
                run.result()
        finally:
            pool.shutdown(cancel_futures=True)


def at_once(config: TrainingConfig) -> int:
    """How many runs such as `config` the machine takes side by side, at least one."""
    cores = len(os.sched_getaffinity(0))
    by_cores = cores // (config.run.threads or cores)
    if not on_gpu(config):
        return max(1, by_cores)
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(by_cores, int(free) // _GPU_BYTES_A_RUN))


def _train(job: Job) -> None:
    resume = (job.folder / LAST).exists()
    train(job.member, job.config, job.folder, resume=resume, watch=_Lines(job.folder.name), part=job.part)
