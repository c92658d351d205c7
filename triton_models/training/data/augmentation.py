"""How training crops are varied: what turns, scales, stains and blurs a cell without making it another class."""

from typing import Any, Final

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from triton_models.training.config import Augmentation

MARGIN: Final = 1.25  # crops are prepared with this much around them, so that turning them shows real surroundings

# Optical densities of haematoxylin, eosin and DAB (Ruifrok & Johnston 2001): a basis in which dyes vary apart.
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


class TurnScaleShift(v2.RandomAffine):
    """A random affine map whose corners are filled with the crop's own ground, the mean of its border."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The crop `[3, H, W]`, mapped."""
        border = torch.cat([inpt[:, 0], inpt[:, -1], inpt[:, :, 0], inpt[:, :, -1]], 1).float()
        fill = border.mean(1).tolist()
        mapped: Tensor = functional.affine(inpt, **params, interpolation=self.interpolation, fill=fill)
        return mapped


class StainJitter(v2.Transform):
    """Each stain's density times 1 ± `amount` (Tellez et al. 2018). Crops are float `[3, H, W]` in 0…1."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A factor a stain."""
        del flat_inputs
        return {"factors": 1 + (torch.rand(3) * 2 - 1) * self.amount}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The crop with its stains' densities changed."""
        change = torch.linalg.inv(_STAINS) @ torch.diag(params["factors"]) @ _STAINS
        density = -torch.log(inpt.clamp(min=1 / 255)).flatten(1)
        return torch.exp(-(change.T @ density)).clamp(0, 1).view_as(inpt)


def training_transform(how: Augmentation, side_px: int) -> v2.Compose:
    """From a UINT8 crop `[3, M, M]` with margin to a varied float crop `[3, S, S]` in 0…1.

    All randomness is drawn from torch's global generator, which the data set seeds for each crop.
    """
    steps: list[Any] = []
    if how.rotation_deg or how.shift or how.scale != (1.0, 1.0):
        shift = how.shift / MARGIN
        steps.append(
            TurnScaleShift(how.rotation_deg, (shift, shift), how.scale, interpolation=InterpolationMode.BILINEAR)
        )
    steps.append(v2.CenterCrop(side_px))
    if how.flips:
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if how.stain:
        steps.append(StainJitter(how.stain))
    if how.brightness or how.contrast or how.saturation or how.hue:
        jitter = v2.ColorJitter(how.brightness, how.contrast, how.saturation, how.hue)
        steps.append(v2.RandomApply([jitter], 0.8))
    if how.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, how.blur_sigma)], how.blur))
    if how.noise:
        steps.append(v2.RandomApply([v2.GaussianNoise(sigma=how.noise_sigma)], how.noise))
    if how.cutout:
        steps.append(v2.RandomErasing(how.cutout, scale=(0.02, 0.12), ratio=(0.5, 2.0), value="random"))
    return v2.Compose(steps)


def mixing(how: Augmentation, classes: int) -> v2.Transform | None:
    """What mixes the crops and labels of a batch, if anything: labels become shares `[N, classes]`."""
    choices: list[Any] = []
    if how.mixup:
        choices.append(v2.MixUp(alpha=how.mixup, num_classes=classes))
    if how.cutmix:
        choices.append(v2.CutMix(alpha=how.cutmix, num_classes=classes))
    if not choices:
        return None
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
