"""A run learns, writes down what it did, and goes on after an interruption as if there had been none."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from services.errors import ConfigurationError
from triton_models.training.config import (
    Augmentation,
    ClassWeights,
    Data,
    Fit,
    Network,
    Objective,
    Optimisation,
    Precision,
    Preparation,
    Run,
    TrainingConfig,
    as_toml,
    read_config,
)
from triton_models.training.learning import checkpoint
from triton_models.training.learning import run as run_module
from triton_models.training.learning.checkpoint import CheckpointMissing
from triton_models.training.learning.logits import read_logits
from triton_models.training.learning.side_by_side import at_once
from triton_models.training.learning.train import RunInterrupted, git_commit, train

TINY = "test_resnet"  # timm's own network for tests
COUNTS = {"train": {"normal": 14, "tapered": 9, "odd": 11}, "val": {"normal": 5, "tapered": 5, "odd": 5}}


def tiny(path: Path, **optimisation: object) -> TrainingConfig:
    """A run of seconds that uses every source of chance: dropout, drop path, augmentation, mixing, sampling."""
    return TrainingConfig(
        data=Data(path=path, classes="found"),
        preparation=Preparation(fit=Fit.VIEW, view_px=48, side_px=32),
        network=Network(dropout=0.3, drop_path=0.2),
        augmentation=Augmentation(mixup=0.2, cutmix=0.5),
        objective=Objective(class_weights=ClassWeights.NONE, balanced_sampler=True),
        optimisation=Optimisation.model_validate(
            {"epochs": 3, "batch": 8, "precision": "bf16", "warmup_epochs": 1, **optimisation}
        ),
        run=Run(seed=5, threads=1, checkpoint_minutes=0),
    )


class StopAt:
    """Stops a run after so many steps; `hard` as a killed process would, between two checkpoints."""

    def __init__(self, steps: int, hard: bool = False) -> None:
        self.left = steps
        self.hard = hard

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0 and self.hard:
            raise KeyboardInterrupt

    def epoch(self, row: dict[str, float]) -> None:
        pass

    def __call__(self) -> bool:
        return self.left == 0 and not self.hard


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    content = torch.load(folder / name, weights_only=True)
    return {**content["network"], **{f"ema.{key}": value for key, value in content["ema"].items()}}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing


@pytest.mark.parametrize(("steps", "hard"), [(4, False), (6, True), (2, True)])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    cells: Callable[..., Path], tmp_path: Path, steps: int, hard: bool
) -> None:
    config = tiny(cells(COUNTS))
    train(TINY, config, tmp_path / "whole")
    stop = StopAt(steps, hard)
    with pytest.raises(KeyboardInterrupt if hard else RunInterrupted):
        train(TINY, config, tmp_path / "broken", watch=stop, stop=stop)
    torch.manual_seed(99)  # another process would start elsewhere
    train(TINY, config, tmp_path / "broken", resume=True)

    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    whole, broken = (read_logits(tmp_path / name / "validation.npz") for name in ("whole", "broken"))
    assert np.array_equal(whole.logits, broken.logits)
    texts = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "broken")]
    rows = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [row["training_loss"] for row in rows[0]] == [row["training_loss"] for row in rows[1]]


def test_the_seed_decides_the_weights(cells: Callable[..., Path], tmp_path: Path) -> None:
    config = tiny(cells(COUNTS), epochs=1)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 6})})
    for name, how in (("first", config), ("again", config), ("other", other)):
        train(TINY, how, tmp_path / name)
    assert_same(weights(tmp_path / "first"), weights(tmp_path / "again"))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "other")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_checkpoints_are_written_when_they_are_due_and_the_best_weights_are_kept_until_then(
    cells: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = tiny(cells(COUNTS), epochs=4)
    seldom = often.model_copy(update={"run": often.run.model_copy(update={"checkpoint_minutes": 10.0})})
    record = train(TINY, often, tmp_path / "often")
    assert record["best_epoch"] < record["epochs"] - 1, "the best weights are not the last"
    written, save = [], checkpoint.save

    def noted(path: Path, content: dict[str, object], position: checkpoint.Position) -> None:
        written.append(path.name)
        save(path, content, position)

    monkeypatch.setattr(checkpoint, "save", noted)
    train(TINY, seldom, tmp_path / "seldom")
    assert written == ["best.pt", "last.pt"]
    for name in written:
        assert_same(weights(tmp_path / "often", name), weights(tmp_path / "seldom", name))


def test_a_run_seeds_the_generator_of_a_gpu_at_its_start_only(
    cells: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    train(TINY, tiny(cells(COUNTS), epochs=1), tmp_path / "run")
    assert len(seeded) == 2, "or its dropout would repeat"


def test_a_run_ends_well_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


def test_as_many_runs_go_side_by_side_as_cores_and_a_gpus_memory_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert at_once(config.model_copy(update={"run": Run(threads=3, accelerator="cpu")})) == 5
    assert at_once(config.model_copy(update={"run": Run(threads=0, accelerator="cpu")})) == 1
    assert at_once(config.model_copy(update={"run": Run(threads=64, accelerator="cpu")})) == 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (75 * 2**30, 80 * 2**30))
    assert at_once(config.model_copy(update={"run": Run(threads=1, accelerator="cuda")})) == 9


def test_a_run_learns_and_writes_down_what_it_did(cells: Callable[..., Path], tmp_path: Path) -> None:
    config = tiny(cells({"train": {"normal": 40, "tapered": 40}, "val": {"normal": 12, "tapered": 12}}), epochs=8)
    plain = Augmentation(stain=0, hue=0, blur=0, noise=0, cutout=0)
    config = config.model_copy(update={"augmentation": plain, "network": Network(dropout=0, drop_path=0)})
    config = config.model_copy(update={"objective": Objective(), "run": Run(threads=1)})
    config = config.model_copy(
        update={"optimisation": Optimisation(epochs=8, batch=8, learning_rate=5e-3, ema_decay=0.9, warmup_epochs=1)}
    )
    record = train(TINY, config, tmp_path / "run")
    assert record["validation"]["accuracy"] >= 0.9
    assert record == json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["classes"] == ["Normal", "TaperedHead"]
    assert read_config(tmp_path / "run" / "config.toml") == config
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 9
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    with pytest.raises(FileExistsError):
        train(TINY, config, tmp_path / "run")


def test_it_stops_early_when_macro_f1_no_longer_grows(cells: Callable[..., Path], tmp_path: Path) -> None:
    config = tiny(cells(COUNTS), epochs=9, learning_rate=1e-12, patience=2)
    # Without batch normalisation, whose statistics would still settle: nothing changes from epoch to epoch.
    record = train("test_efficientnet_ln", config, tmp_path / "run")
    assert record["best_epoch"] == 0
    assert record["epochs"] == 3


def test_a_run_that_asks_for_half_precision_and_does_not_get_it_fails(
    cells: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run_module._FABRIC_PRECISION, Precision.BF16, "32-true")
    with pytest.raises(run_module.PrecisionNotInUse, match=r"float32"):
        train(TINY, tiny(cells(COUNTS)), tmp_path / "run")


@pytest.mark.parametrize(
    ("units", "wanted", "taken"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, "auto", "fp32"),
        ({"amx_bf16": True}, "auto", "bf16"),
        ({}, "bf16", "bf16"),
    ],
)
def test_a_cpu_trains_in_what_it_has_units_for_unless_told_otherwise(
    units: dict[str, bool], wanted: str, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    config = tiny(tmp_path, precision=wanted)
    config = config.model_copy(update={"run": Run(accelerator="cpu")})
    assert run_module.precision_of(config) == taken


def test_a_run_does_not_go_on_in_another_precision(cells: Callable[..., Path], tmp_path: Path) -> None:
    images = cells(COUNTS)
    stop = StopAt(2)
    with pytest.raises(RunInterrupted):
        train(TINY, tiny(images, precision="fp32"), tmp_path / "run", watch=stop, stop=stop)
    with pytest.raises(CheckpointMissing, match=r"written in fp32, .* in bf16"):
        train(TINY, tiny(images), tmp_path / "run", resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_gradients_of_fp16_can_be_clipped(tmp_path: Path) -> None:
    config, half = tiny(tmp_path), tiny(tmp_path, precision="fp16")
    fabric = run_module.make_fabric(config)
    handles_scale = [
        getattr(run_module.TrainingRun(fabric, TINY, how, [1, 1, 1]).optimizer, "_step_supports_amp_scaling", False)
        for how in (config, half)
    ]
    assert handles_scale == [True, False]  # Fabric clips only where this is False, or where nothing is scaled


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_is_refused_without_a_gpu(cells: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GPU"):
        train(TINY, tiny(cells(COUNTS), precision="fp16"), tmp_path / "run")


def test_weights_of_other_classes_are_taken_without_their_classifier(
    cells: Callable[..., Path], tmp_path: Path
) -> None:
    train(TINY, tiny(cells(COUNTS), epochs=1), tmp_path / "three")
    two = {split: {"normal": 8, "tapered": 8} for split in ("train", "val")}
    config = tiny(cells(two, "two"), epochs=1, learning_rate=1e-12)
    config = config.model_copy(update={"network": Network(weights=str(tmp_path / "three" / "last.pt"))})
    record = train(TINY, config, tmp_path / "two-run")
    assert record["classes"] == ["Normal", "TaperedHead"]
    started, taken = weights(tmp_path / "three"), weights(tmp_path / "two-run")
    name = "conv1.weight" if "conv1.weight" in started else next(key for key in started if key.endswith("weight"))
    assert torch.allclose(started[f"ema.{name}"], taken[name], atol=1e-6)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    (tmp_path / "run.toml").write_text(as_toml(config))
    assert read_config(tmp_path / "run.toml") == config
