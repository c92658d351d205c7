"""`morphbatch train`: one member, from labelled images to a run folder.

The folder holds config.toml (the whole configuration), metrics.csv, tensorboard/, last.pt and best.pt, and, once the
run is through, validation.npz (fp32 logits on the validation images) and run.json.
"""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from services.atomic import AlreadyThere, write_text
from services.errors import MorphbatchError
from triton_models.training.config import Optimisation, TrainingConfig, as_toml
from triton_models.training.data.augmentation import MARGIN, mixing
from triton_models.training.data.batches import TrainingCrops, seed_of
from triton_models.training.data.dataset import LabelledImage, fingerprint, read_dataset, resolve_classes
from triton_models.training.data.duplicates import seen_again
from triton_models.training.data.preparation import read_crops
from triton_models.training.data.splits import cut
from triton_models.training.learning import checkpoint
from triton_models.training.learning.checkpoint import BEST, LAST, Position
from triton_models.training.learning.journal import Journal
from triton_models.training.learning.logits import LabelledLogits
from triton_models.training.learning.run import TrainingRun, make_fabric

CONFIG_NAME = "config.toml"
LOGITS_NAME = "validation.npz"
RUN_NAME = "run.json"


class RunInterrupted(MorphbatchError):
    """The run was asked to stop; it wrote a checkpoint and may be resumed."""

    reason = "run_interrupted"


class Watch(Protocol):
    """Who follows a run."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Batch `step` of `steps` of an epoch is done."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch is done; `row` is its line of metrics.csv."""


class Unwatched:
    """Follows nothing."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Ignored."""

    def epoch(self, row: dict[str, float]) -> None:
        """Ignored."""


@dataclass(frozen=True, slots=True)
class Crops:
    """Images of a part of the data, as arrays."""

    names: tuple[str, ...]
    crops: NDArray[np.uint8]
    labels: list[int]


def read_part(
    images: Sequence[LabelledImage], classes: Sequence[str], config: TrainingConfig, margin: float = 1.0
) -> Crops:
    """The crops and class indices of `images`.

    Raises:
        ImageUnreadable: names the first file that cannot be read.
    """
    root = config.data.path if config.data.path.is_dir() else config.data.path.parent
    names = [image.path.relative_to(root) if image.path.is_relative_to(root) else image.path for image in images]
    return Crops(
        tuple(name.as_posix() for name in names),
        read_crops([image.path for image in images], config.preparation, margin),
        [classes.index(image.label) for image in images],
    )


def train(
    member: str,
    config: TrainingConfig,
    folder: Path,
    resume: bool = False,
    watch: Watch | None = None,
    stop: Callable[[], bool] = lambda: False,
    part: tuple[Sequence[LabelledImage], Sequence[LabelledImage]] | None = None,
) -> dict[str, Any]:
    """Train `member` as `config` says, in the run folder `folder`; returns what run.json holds.

    Args:
        member: efficientnetv2_s, resnetv2_50, or any timm name.
        config: the whole run.
        folder: is made; holds the checkpoints.
        resume: go on from last.pt of `folder`, to the bit.
        watch: told of each step and epoch.
        stop: asked after each step; if true, a checkpoint is written and the run ends.
        part: images to train and validate on, instead of those that `config.data` cuts; none to validate on: the last
            weights are kept.

    Raises:
        AlreadyThere: `folder` holds a run and `resume` is false.
        RunInterrupted: `stop` said so.
        DatasetBroken, ImageUnreadable, WeightsUnusable, PrecisionNotInUse, CheckpointMissing.
    """
    if (folder / LAST).exists() and not resume:
        raise AlreadyThere(f"{folder} already holds a run: continue it with --resume, or choose another folder")
    watch = watch or Unwatched()
    fabric = make_fabric(config)
    dataset = read_dataset(config.data.path)
    classes = resolve_classes(dataset, config.data.classes)
    images, held = part if part is not None else cut(dataset, config.data)
    twins = seen_again([i.path for i in images], [i.path for i in held]) if config.data.drop_twins else set()
    images = tuple(image for number, image in enumerate(images) if number not in twins)
    training = read_part(images, classes, config, MARGIN)
    validation = read_part(held, classes, config)
    counts = [training.labels.count(index) for index in range(len(classes))]

    run = TrainingRun(fabric, member, config, counts)
    if resume:
        run.load(folder / LAST)
    journal = None
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            write_text(folder / CONFIG_NAME, as_toml(config))
        journal = Journal(folder, run.position.epoch)
    started = time.monotonic()
    try:
        _epochs(run, training, validation, folder, journal, watch, stop)
    finally:
        if journal is not None:
            journal.close()

    fabric.barrier()  # the first process may still be writing what all are about to read
    keeps_best = config.optimisation.keep == "best" and bool(validation.labels)
    run.load_weights(folder / (BEST if keeps_best else LAST))
    record = {
        "member": member,
        "classes": list(classes),
        "counts": dict(zip(classes, counts, strict=True)),
        "twins_left_out": len(twins),
        "preparation": config.preparation.model_dump(mode="json"),
        "weights": BEST if keeps_best else LAST,
        "epochs": run.position.epoch,
        "best_epoch": run.position.best_epoch,
        "precision": str(run.precision),
        "device": fabric.device.type if fabric.device.type == "cpu" else torch.cuda.get_device_name(),
        "devices": fabric.world_size,
        "minutes_since_start_or_resume": round((time.monotonic() - started) / 60, 2),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "training_fingerprint": fingerprint(images),
        "validation_fingerprint": fingerprint(held) if held else None,
    }
    if fabric.is_global_zero:
        if validation.labels:
            logits = run.logits(validation.crops, exact=True)
            record["validation"] = scores(logits, validation.labels)
            truth = np.array(validation.labels, np.int64)
            LabelledLogits(classes, validation.names, truth, logits).write(folder / LOGITS_NAME)
        write_text(folder / RUN_NAME, json.dumps(record, indent=2) + "\n")
    fabric.barrier()
    return record


class _Checkpoints:
    """The checkpoints of a run: written every `checkpoint_minutes` and at its end; the best weights wait in memory.

    They are on disk before a last.pt that knows of them; what is lost with the process is learnt again.
    """

    def __init__(self, run: TrainingRun, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.best: dict[str, Any] | None = None
        self.written = time.monotonic()

    def keep_best(self) -> None:
        """The weights of this moment are the best yet."""
        self.best = self.run.weights()

    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self.written >= self.run.config.run.checkpoint_minutes * 60

    def write(self) -> None:
        """Write both. With several devices every process must call it."""
        if self.best is not None and self.run.fabric.is_global_zero:
            checkpoint.save(self.folder / BEST, self.best, self.run.position)
        self.best = None
        self.run.save(self.folder / LAST)
        self.written = time.monotonic()


def _at_end(position: Position, how: Optimisation) -> bool:
    """Whether all epochs are done, or `patience` has run out."""
    waited = position.epoch - 1 - position.best_epoch
    out_of_patience = bool(how.patience) and position.best_epoch >= 0 and waited >= how.patience
    return position.epoch >= how.epochs or out_of_patience


def _epochs(
    run: TrainingRun,
    training: Crops,
    validation: Crops,
    folder: Path,
    journal: Journal | None,
    watch: Watch,
    stop: Callable[[], bool],
) -> None:
    config, position = run.config, run.position
    how = config.optimisation
    data = TrainingCrops(
        training.crops, training.labels, config.augmentation, config.preparation.side_px, run.fabric.device
    )
    mix = mixing(config.augmentation, len(run.loss.weights))
    checkpoints = _Checkpoints(run, folder)
    while not _at_end(position, how):
        began, begun_at = time.monotonic(), position.step
        batches = run.batches(training.labels, position.epoch, position.step)
        total = how.epochs * batches.in_epoch
        rate = 0.0
        for places in batches:
            number = position.epoch * batches.in_epoch + position.step
            crops, labels = data.batch(places, seed_of(config.run.seed, 4, number, run.fabric.global_rank))
            rate = run.rate(number, total, batches.in_epoch)
            position.loss_sum += run.step(crops, labels, number, rate, mix)
            position.step += 1
            watch.step(position.epoch, position.step, batches.in_epoch, position.loss_sum / position.step)
            if run.any_process(stop()):
                checkpoints.write()
                raise RunInterrupted(
                    f"stopped in epoch {position.epoch}; `morphbatch train … --resume` continues from here"
                )
            if run.fabric.world_size == 1 and checkpoints.due():
                checkpoints.write()
        row = {
            "epoch": float(position.epoch),
            "learning_rate": rate,
            "training_loss": position.loss_sum / position.step,
            "images_per_second": (position.step - begun_at) * batches.batch / (time.monotonic() - began),
        }
        if validation.labels:
            row.update(scores(run.logits(validation.crops), validation.labels))
        position.history.append(row)
        is_best = row.get("macro_f1", -1.0) > position.best_f1
        if is_best:
            position.best_f1, position.best_epoch = row["macro_f1"], position.epoch
        position.epoch, position.step, position.loss_sum = position.epoch + 1, 0, 0.0
        if is_best and how.keep == "best":
            checkpoints.keep_best()
        if run.any_process(checkpoints.due()) or _at_end(position, how):
            checkpoints.write()
        if journal is not None:
            journal.write(position.history)
        watch.epoch(row)


def scores(logits: NDArray[np.float32], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, macro-F1 over the classes that occur, and cross-entropy of logits `[N, classes]`."""
    truth, chosen = np.asarray(labels), logits.argmax(1)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return {
        "accuracy": float(accuracy_score(truth, chosen)),
        "macro_f1": float(f1_score(truth, chosen, average="macro", labels=np.unique(truth), zero_division=0)),
        "validation_loss": float(-log_p[np.arange(len(truth)), truth].mean()),
    }


def git_commit() -> str | None:
    """The commit of the code that runs; None: it is installed without its history, or git does not tell."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None  # a run of hours does not end for this
    return asked.stdout.strip() if asked.returncode == 0 else None
