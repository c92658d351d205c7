"""The state of a training run: network, averaged weights, optimiser, position; how a step and a look are made."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchvision.transforms import v2

from services.errors import ConfigurationError
from triton_models.export.network import standardised
from triton_models.training.config import Precision, TrainingConfig
from triton_models.training.data.batches import EpochBatches, seed_of
from triton_models.training.learning import checkpoint
from triton_models.training.learning.checkpoint import Position
from triton_models.training.learning.losses import ClassifierLoss
from triton_models.training.learning.networks import build_network

_FABRIC_PRECISION = {Precision.FP32: "32-true", Precision.BF16: "bf16-mixed", Precision.FP16: "16-mixed"}
_DTYPE = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")  # of x86 CPUs, and of Arm's
_VALIDATION_BATCH = 64


class PrecisionNotInUse(ConfigurationError):
    """The run asked for half precision, and the network did not compute in it."""

    reason = "precision_not_in_use"


def precision_of(config: TrainingConfig) -> Precision:
    """The precision of a run on this machine: never `auto`."""
    wanted = config.optimisation.precision
    if wanted is not Precision.AUTO:
        return wanted
    if on_gpu(config):
        return Precision.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FP16
    units = torch.cpu.get_capabilities()
    return Precision.BF16 if any(units.get(name) for name in _BF16_UNITS) else Precision.FP32


def on_gpu(config: TrainingConfig) -> bool:
    """Whether the run would train on a GPU."""
    wanted = config.run.accelerator
    return wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())


def make_fabric(config: TrainingConfig) -> Fabric:
    """Devices, precision and determinism of a run.

    Raises:
        ConfigurationError: fp16 was asked for on a CPU, which trains in bf16 or fp32.
    """
    run, precision, gpu = config.run, precision_of(config), on_gpu(config)
    if precision is Precision.FP16 and not gpu:
        raise ConfigurationError("precision = 'fp16' requires a GPU; a CPU trains in 'bf16' or 'fp32'")
    to_the_bit = run.deterministic or not gpu
    if to_the_bit:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    # On a GPU some backward passes have no deterministic form: torch then warns and names them.
    torch.use_deterministic_algorithms(to_the_bit, warn_only=gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # only shows bugs, and costs a third of the speed
    torch.backends.cudnn.benchmark = not to_the_bit
    if run.threads:
        torch.set_num_threads(run.threads)
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=run.devices,
        strategy="ddp" if run.devices > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    return fabric


class TrainingRun:
    """A network being trained.

    Args:
        fabric: launched.
        member: name of the network.
        config: of the run.
        counts: training images a class.
    """

    def __init__(self, fabric: Fabric, member: str, config: TrainingConfig, counts: list[int]) -> None:
        self.fabric = fabric
        self.config = config
        self.precision = precision_of(config)
        self.position = Position()
        torch.manual_seed(seed_of(config.run.seed, 1))
        network = build_network(member, len(counts), config.network)
        network.to(memory_format=torch.channels_last)
        optimisation = config.optimisation
        groups = param_groups_weight_decay(network, optimisation.weight_decay)
        # A fused step would undo fp16's loss scale by itself, and Fabric then refuses to clip gradients.
        fused = self.precision is not Precision.FP16
        self.optimizer: Any = torch.optim.AdamW(groups, lr=optimisation.learning_rate, fused=fused)
        self.network: Any = network
        trained = torch.compile(network) if optimisation.compile else network
        self._trained, self._optimizer = fabric.setup(trained, self.optimizer)
        self.ema: Any = None
        if optimisation.ema_decay:
            self.ema = ModelEmaV3(network, decay=optimisation.ema_decay, use_warmup=True)
        self.loss = ClassifierLoss(config.objective, counts).to(fabric.device)
        self._seen_dtype: torch.dtype | None = None
        torch.manual_seed(seed_of(config.run.seed, 2, fabric.global_rank))

    # ---- one step

    def rate(self, step: int, total: int, a_epoch: int) -> float:
        """Learning rate of step `step` of `total`: linear warm-up, then one cosine."""
        how = self.config.optimisation
        warm = min(round(how.warmup_epochs * a_epoch), total - 1)
        if step < warm:
            return how.learning_rate * (step + 1) / warm
        through = (step - warm) / max(1, total - warm)
        return how.learning_rate * (how.final_rate + (1 - how.final_rate) * (1 + math.cos(math.pi * through)) / 2)

    def step(self, crops: Tensor, labels: Tensor, number: int, rate: float, mix: v2.Transform | None) -> float:
        """One step on float crops `[B, 3, S, S]` in 0…1; returns the loss.

        Raises:
            PrecisionNotInUse: found on the first step.
        """
        how = self.config.optimisation
        self._trained.train()
        if mix is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which would also set back the GPU's generator, and so dropout.
                torch.default_generator.manual_seed(seed_of(self.config.run.seed, 3, number, self.fabric.global_rank))
                crops, labels = mix(crops, labels)
        crops = standardised(crops).contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self._trained(crops) if self._seen_dtype else self._first_forward(crops)
        loss: Tensor = self.loss(logits, labels)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self._trained, self._optimizer, max_norm=how.clip_norm, error_if_nonfinite=False)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.network, step=number)
        return float(loss.detach())

    def _first_forward(self, crops: Tensor) -> Tensor:
        """A forward pass that looks at what the first convolution computes in."""

        def note(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._seen_dtype = output.dtype

        first = next(layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        handle = first.register_forward_hook(note)
        logits: Tensor = self._trained(crops)
        handle.remove()
        wanted = _DTYPE[self.precision]
        if self._seen_dtype is not wanted:
            raise PrecisionNotInUse(f"the run asks for {wanted}, the first convolution computed in {self._seen_dtype}")
        return logits

    # ---- a look at images without learning

    def logits(self, crops: NDArray[np.uint8], exact: bool = False) -> NDArray[np.float32]:
        """Logits `[N, classes]` of UINT8 crops `[N, S, S, 3]` by the averaged weights where there are any.

        Args:
            crops: without margin.
            exact: in fp32, as the released network computes; else in the run's precision.
        """
        network = self.network if self.ema is None else self.ema.module
        network.eval()
        parts = []
        with torch.inference_mode():
            for batch in _sliced(crops, _VALIDATION_BATCH):
                pixels = torch.from_numpy(batch).to(self.fabric.device).permute(0, 3, 1, 2).float() / 255
                pixels = standardised(pixels).contiguous(memory_format=torch.channels_last)
                if exact:
                    parts.append(network(pixels).float())
                else:
                    with self.fabric.autocast():
                        parts.append(network(pixels).float())
        logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return logits

    # ---- checkpoints

    def save(self, path: Path) -> None:
        """Write a checkpoint. With several devices every process must call it."""
        randoms: list[Any] = [checkpoint.random_state()]
        if self.fabric.world_size > 1:
            randoms = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(randoms, checkpoint.random_state())
        if not self.fabric.is_global_zero:
            return
        content = {
            **self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "precision": str(self.precision),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "randoms": randoms,
        }
        checkpoint.save(path, content, self.position)

    def weights(self) -> dict[str, Any]:
        """A copy of the weights and of their average, on the device: what `load_weights` takes of a checkpoint."""
        return {
            part: {name: value.clone() for name, value in tensors.items()} for part, tensors in self._weights().items()
        }

    def _weights(self) -> dict[str, Any]:
        averaged = {} if self.ema is None else {"ema": self.ema.module.state_dict()}
        return {"network": self.network.state_dict(), **averaged}

    def load(self, path: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            CheckpointMissing: there is none, or it was written on another number of devices or in another precision.
        """
        content, self.position = checkpoint.load(path)
        if len(content["randoms"]) != self.fabric.world_size:
            raise checkpoint.CheckpointMissing(
                f"{path} was written on {len(content['randoms'])} devices; resume on as many"
            )
        if content["precision"] != self.precision:
            raise checkpoint.CheckpointMissing(
                f"{path} was written in {content['precision']}, this machine would continue in {self.precision}; resume"
                f" with precision = '{content['precision']}', or start another run"
            )
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.fabric.strategy.precision.load_state_dict(content["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(content["ema"])
        checkpoint.restore_random_state(content["randoms"][self.fabric.global_rank])

    def load_weights(self, path: Path) -> None:
        """Take the weights of a checkpoint and nothing else of it."""
        content, _ = checkpoint.load(path)
        self.network.load_state_dict(content["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(content["ema"])

    def any_process(self, wish: bool) -> bool:
        """Whether any process of the run wishes it: a signal reaches them between different steps."""
        if self.fabric.world_size == 1:
            return wish
        wishes = torch.tensor(float(wish), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wishes, reduce_op="sum") > 0)

    def batches(self, labels: list[int], epoch: int, start: int) -> EpochBatches:
        """This process's part of the batches of an epoch."""
        return EpochBatches(
            labels,
            self.config.optimisation.batch,
            self.config.run.seed,
            epoch,
            start,
            self.config.objective.balanced_sampler,
            (self.fabric.global_rank, self.fabric.world_size),
        )


def _sliced(crops: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(crops), size):
        yield crops[start : start + size]
