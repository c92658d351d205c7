"""The one TOML file of a training run. Every number in it is our choice; none is claimed to be the paper's."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.documents import describe, read_toml
from services.errors import ConfigurationError


class TrainingConfigBroken(ConfigurationError):
    """The TOML file of a run is missing, malformed or contradicts itself."""

    reason = "training_config_broken"


class Fit(StrEnum):
    """How an image of any shape becomes a square."""

    VIEW = "view"  # the middle `view_px` pixels: keeps the scale, which a detector's crops have in common
    PAD = "pad"  # the whole image, its shorter side padded: keeps the proportions
    STRETCH = "stretch"


class Loss(StrEnum):
    """What is minimised."""

    CROSS_ENTROPY = "cross_entropy"
    FOCAL = "focal"  # Lin et al. 2017
    LOGIT_ADJUSTED = "logit_adjusted"  # Menon et al. 2021


class ClassWeights(StrEnum):
    """How much the cells of a class count."""

    NONE = "none"
    INVERSE = "inverse"  # 1 / n
    EFFECTIVE = "effective"  # Cui et al. 2019: (1 - β) / (1 - βⁿ)


class Precision(StrEnum):
    """Arithmetic of the forward pass; the weights stay fp32."""

    AUTO = "auto"  # bf16 where the device computes in it; else fp16 on a GPU, fp32 on a CPU
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Preparation(_Part):
    """From an image file to UINT8 `[side_px, side_px, 3]`; the same in training, evaluation and release."""

    fit: Fit = Fit.VIEW
    view_px: int = Field(
        default=160, ge=8, le=4096, description="Side of the central square that is used; for fit = view only."
    )
    side_px: int = Field(default=128, ge=32, le=1024, description="Side of the crops that the network is given.")


class Data(_Part):
    """Which images, which classes, and what is kept for validation."""

    path: Path = Field(description="An image folder or a CSV; relative to the TOML file.")
    classes: Literal["taxonomy", "found"] | tuple[str, ...] = Field(
        default="taxonomy", description="The 18 classes, those that the data has, or a list in index order."
    )
    train: tuple[str, ...] = Field(default=("train",), description="Splits trained on, where the data names splits.")
    validation: tuple[str, ...] = Field(
        default=("val",), description="Splits validated on; empty: cut `fold` of `folds`."
    )
    folds: int = Field(default=5, ge=2, le=50)
    fold: int = Field(default=0, ge=0)
    split_seed: int = 0
    drop_twins: bool = Field(
        default=True, description="Leave out training images that show a cell of the validation part again."
    )

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if set(self.train) & set(self.validation):
            raise ValueError(f"{sorted(set(self.train) & set(self.validation))} trains and validates")
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}: folds count from 0")
        return self


class Network(_Part):
    """Where the weights start from."""

    weights: str | None = Field(
        default=None,
        description="A checkpoint of a run, the ONNX file of a release's member, a safetensors or torch file, or "
        "`hub:<timm model id>`; None: drawn.",
    )
    dropout: Share = 0.2
    drop_path: Share = 0.1


class Augmentation(_Part):
    """How training crops are varied. Shares are probabilities; 0 switches a part off."""

    rotation_deg: float = Field(default=180.0, ge=0, le=180)
    scale: tuple[float, float] = (0.85, 1.2)
    shift: Share = Field(default=0.06, description="Largest shift, as a share of the side.")
    flips: bool = True
    stain: float = Field(default=0.15, ge=0, le=1, description="Largest relative change of each stain's density.")
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.04, ge=0, le=0.5)
    blur: Share = 0.25
    blur_sigma: tuple[float, float] = (0.3, 1.5)
    noise: Share = 0.25
    noise_sigma: float = Field(default=0.03, ge=0, le=1, description="Of pixels in 0…1.")
    cutout: Share = 0.2
    mixup: float = Field(default=0.0, ge=0, description="α of the Beta distribution; 0: off.")
    cutmix: float = Field(default=0.0, ge=0, description="α of the Beta distribution; 0: off.")


class Objective(_Part):
    """The loss, and how classes are balanced."""

    loss: Loss = Loss.CROSS_ENTROPY
    class_weights: ClassWeights = ClassWeights.INVERSE
    effective_beta: float = Field(default=0.999, gt=0, lt=1)
    label_smoothing: Share = 0.1
    focal_gamma: float = Field(default=2.0, ge=0)
    adjustment_tau: float = Field(default=1.0, ge=0)
    balanced_sampler: bool = False

    @model_validator(mode="after")
    def _balanced_once(self) -> Self:
        if self.balanced_sampler and self.class_weights is not ClassWeights.NONE:
            raise ValueError("balanced_sampler with class_weights would balance twice; set class_weights = 'none'")
        if self.loss is Loss.LOGIT_ADJUSTED and (self.balanced_sampler or self.class_weights is not ClassWeights.NONE):
            raise ValueError("the logit-adjusted loss balances by itself; set class_weights = 'none' and no sampler")
        return self


class Optimisation(_Part):
    """AdamW with warm-up and one cosine, EMA, early stop on validation macro-F1."""

    epochs: int = Field(default=40, ge=1)
    batch: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_rate: Share = Field(default=0.01, description="Share of the learning rate that remains at the end.")
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_epochs: float = Field(default=3.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Precision = Field(
        default=Precision.AUTO, description="bf16 on a CPU without bf16 units takes many times as long as fp32."
    )
    ema_decay: float = Field(default=0.998, ge=0, lt=1, description="0: no EMA.")
    patience: int = Field(
        default=0, ge=0, description="Epochs without a better macro-F1 before the run stops; 0: never."
    )
    keep: Literal["best", "last"] = Field(
        default="best", description="Weights of the best validation macro-F1, or the last."
    )
    compile: bool = False


class Run(_Part):
    """How it is run: no number here changes what is learnt but the seed (and the number of devices)."""

    seed: int = 0
    devices: int = Field(default=1, ge=1)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = Field(
        default=False,
        description="On a GPU: only algorithms that give the same to the bit, which take longer; a CPU's always do.",
    )
    threads: int = Field(default=0, ge=0, description="0: as many as torch chooses.")
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="Minutes between checkpoints; 0: after each step."
    )


class TrainingConfig(_Part):
    """A whole run."""

    data: Data
    preparation: Preparation = Preparation()
    network: Network = Network()
    augmentation: Augmentation = Augmentation()
    objective: Objective = Objective()
    optimisation: Optimisation = Optimisation()
    run: Run = Run()


def read_config(path: Path) -> TrainingConfig:
    """The run described in the TOML file `path`; paths in it are relative to its folder.

    Raises:
        TrainingConfigBroken: names every fault.
    """
    try:
        config = TrainingConfig.model_validate(read_toml(path, TrainingConfigBroken))
    except ValidationError as error:
        raise TrainingConfigBroken(f"{path}: {describe(error)}") from error
    return with_data(config, path.parent / config.data.path)


def with_data(config: TrainingConfig, path: Path) -> TrainingConfig:
    """`config` with other images."""
    return config.model_copy(update={"data": config.data.model_copy(update={"path": path.absolute()})})


def with_weights(config: TrainingConfig, weights: str | None) -> TrainingConfig:
    """`config` with other weights to start from."""
    return config.model_copy(update={"network": config.network.model_copy(update={"weights": weights})})


def as_toml(config: TrainingConfig) -> str:
    """`config` as the text of a TOML file that `read_config` reads back."""
    lines = []
    for table, values in config.model_dump(mode="json", exclude_none=True).items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        lines.append("")
    return "\n".join(lines)
