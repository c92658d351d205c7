"""How training crops are varied: what turns, scales, stains and blurs a cell without making it another class.

Whole batches are varied where they are trained on, each crop by itself. What chance says is drawn on the CPU first, so
that it is the same on every device; the maps are those of torchvision.transforms.v2.functional, which takes one number
for a whole batch where here each crop has its own.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from triton_models.training.config import Augmentation

MARGIN: Final = 1.25  # crops are prepared with this much around them, so that turning them shows real surroundings

# Optical densities of haematoxylin, eosin and DAB (Ruifrok & Johnston 2001): a basis in which dyes vary apart.
_STAINS: Final = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_GREY: Final = torch.tensor([0.2989, 0.587, 0.114])
_COLOURED: Final = 0.8  # share of the crops whose colours vary
_BLUR_REACH: Final = 2  # pixels to each side
_ERASED_AREA: Final = (0.02, 0.12)
_ERASED_RATIO: Final = (0.5, 2.0)
COLOURS: Final = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance says of a batch: a number a crop, `[B]` on the CPU, where nothing else is said."""

    angle: Tensor  # degrees
    scale: Tensor
    shift: Tensor  # whole pixels, [B, 2]: x, y
    flips: Tensor  # bool [B, 2]: left and right, up and down
    stains: Tensor  # factor of each stain's density, [B, 3]
    colours: dict[str, Tensor]  # by COLOURS
    order: tuple[str, ...]  # of the colours, one for the batch
    blur: Tensor  # σ in pixels; 0: none
    noise: Tensor  # σ of pixels in 0…1; 0: none
    erased: Tensor  # pixels, int [B, 4]: top, left, height, width; 0 high: none


def draw(how: Augmentation, crops: int, side_px: int, chance: torch.Generator) -> Draws:
    """Draw for a batch of `crops`, of which each is to be `side_px` wide."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(crops, generator=chance)

    def in_share(share: float) -> Tensor:
        return torch.rand(crops, generator=chance) < share

    def one_in(share: float, value: Tensor) -> Tensor:
        return torch.where(in_share(share), value, 0)

    reach = how.shift / MARGIN * round(side_px * MARGIN)
    coloured = in_share(_COLOURED)
    colours = {
        name: torch.where(coloured, between(max(0.0, 1 - amount), 1 + amount), 1)
        for name, amount in zip(COLOURS[:3], (how.brightness, how.contrast, how.saturation), strict=True)
    }
    area = between(*_ERASED_AREA) * side_px**2
    ratio = between(*map(math.log, _ERASED_RATIO)).exp()
    height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    box = [between(0, 1) * (side_px - height + 1), between(0, 1) * (side_px - width + 1), height, width]
    return Draws(
        angle=between(-how.rotation_deg, how.rotation_deg),
        scale=between(*how.scale),
        shift=torch.stack([between(-reach, reach), between(-reach, reach)], 1).round(),
        flips=torch.stack([in_share(0.5), in_share(0.5)], 1) & how.flips,
        stains=torch.stack([between(1 - how.stain, 1 + how.stain) for _ in range(3)], 1),
        colours={**colours, "hue": torch.where(coloured, between(-how.hue, how.hue), 0)},
        order=tuple(COLOURS[at] for at in torch.randperm(4, generator=chance)),
        blur=one_in(how.blur, between(*how.blur_sigma)),
        noise=one_in(how.noise, torch.full((crops,), how.noise_sigma)),
        erased=torch.stack(box, 1).long() * in_share(how.cutout)[:, None],
    )


def vary(crops: Tensor, draws: Draws, side_px: int, noise: torch.Generator) -> Tensor:
    """Varied float crops `[B, 3, S, S]` in 0…1 of UINT8 crops `[B, 3, M, M]` with margin, on the device of both.

    Args:
        crops: to be varied.
        draws: of as many crops.
        side_px: S.
        noise: of the crops' device; what cannot be drawn as a number a crop comes from it.
    """
    there = crops.device
    varied = _turned(crops, draws, side_px)
    for axis, flipped in ((-1, draws.flips[:, 0]), (-2, draws.flips[:, 1])):
        varied = torch.where(_each(flipped, there), varied.flip(axis), varied)
    varied = varied / 255
    if (draws.stains != 1).any():
        varied = _stained(varied, draws.stains.to(there))
    for name in draws.order:
        if (draws.colours[name] != (0 if name == "hue" else 1)).any():
            varied = _COLOURING[name](varied, _each(draws.colours[name], there))
    if len(some := draws.blur.nonzero()[:, 0]):
        place = some.to(there)
        varied = varied.index_copy(0, place, _blurred(varied[place], draws.blur[some].to(there)))
    if len(some := draws.noise.nonzero()[:, 0]):
        place = some.to(there)
        grain = torch.randn(varied[place].shape, generator=noise, device=there)
        varied = varied.index_copy(0, place, (varied[place] + grain * _each(draws.noise[some], there)).clamp(0, 1))
    if draws.erased.any():
        grain = torch.randn(varied.shape, generator=noise, device=there)
        varied = torch.where(_inside(draws.erased.to(there), side_px), grain, varied)
    return varied


def _each(values: Tensor, device: torch.device) -> Tensor:
    """A value a crop, to be combined with `[B, 3, S, S]`."""
    return values.to(device)[:, None, None, None]


def _turned(crops: Tensor, draws: Draws, side_px: int) -> Tensor:
    """The middle of each crop, turned, scaled and shifted; outside lies its own ground, the mean of its border."""
    if not (draws.angle.any() or draws.shift.any() or (draws.scale != 1).any()):
        return functional.center_crop(crops, [side_px, side_px]).float()
    there, margin_side = crops.device, crops.shape[-1]
    turn = torch.deg2rad(draws.angle)
    cosine, sine = torch.cos(turn) / draws.scale, torch.sin(turn) / draws.scale
    back = torch.stack([torch.stack([cosine, sine], 1), torch.stack([-sine, cosine], 1)], 1)  # from result to crop
    start = round((margin_side - side_px) / 2) - (margin_side - 1) / 2
    line = start + torch.arange(side_px, dtype=torch.float32)
    seen = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).to(there)  # [S, S, 2], x and y from the middle
    grid = (seen - draws.shift.to(there)[:, None, None]) @ back.to(there).transpose(1, 2)[:, None]
    pixels = torch.cat([crops, torch.ones_like(crops[:, :1])], 1).float()
    mapped = grid_sample(pixels, grid * (2 / margin_side), padding_mode="zeros", align_corners=False)
    mapped, covered = mapped[:, :3], mapped[:, 3:]
    border = [pixels[:, :3, 0], pixels[:, :3, -1], pixels[:, :3, :, 0], pixels[:, :3, :, -1]]
    ground = torch.cat(border, 2).mean(2)[:, :, None, None]
    return ((mapped - ground) * covered + ground).round()


def _stained(crops: Tensor, factors: Tensor) -> Tensor:
    """Each stain's density times its factor (Tellez et al. 2018)."""
    stains = _STAINS.to(crops.device)
    change = torch.linalg.inv(stains) @ (factors[:, :, None] * stains)
    density = -torch.log(crops.clamp(min=1 / 255)).flatten(2)
    return torch.exp(-(change.transpose(1, 2) @ density)).clamp(0, 1).view_as(crops)


def _brighter(crops: Tensor, factor: Tensor) -> Tensor:
    return (crops * factor).clamp(0, 1)


def _with_contrast(crops: Tensor, factor: Tensor) -> Tensor:
    return (crops * factor + _grey(crops).mean((2, 3), keepdim=True) * (1 - factor)).clamp(0, 1)


def _saturated(crops: Tensor, factor: Tensor) -> Tensor:
    return (crops * factor + _grey(crops) * (1 - factor)).clamp(0, 1)


def _grey(crops: Tensor) -> Tensor:
    return (crops * _GREY.to(crops.device)[:, None, None]).sum(1, keepdim=True)


def _hued(crops: Tensor, turn: Tensor) -> Tensor:
    """The hue turned by a share of the circle, by way of HSV."""
    red, green, blue = crops.unbind(1)
    value, least = crops.amax(1), crops.amin(1)
    spread = value - least
    divisor = torch.where(spread == 0, 1, spread)
    sixth = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    sixth = torch.where(value == red, (green - blue) / divisor, sixth) + 6 * turn[:, 0]
    channels = []
    for start in (5, 3, 1):
        at = (start + sixth) % 6
        channels.append(value - spread * torch.minimum(at, 4 - at).clamp(0, 1))
    return torch.stack(channels, 1)


def _blurred(crops: Tensor, sigma: Tensor) -> Tensor:
    """Each by a Gaussian of its own σ, in pixels."""
    offsets = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=crops.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True))[..., None, None, None]
    height, width = crops.shape[-2:]
    wide = pad(crops, [_BLUR_REACH] * 4, mode="reflect")
    rows = sum(kernel[:, at] * wide[..., at : at + height, :] for at in range(len(offsets)))
    blurred: Tensor = sum(kernel[:, at] * rows[..., at : at + width] for at in range(len(offsets)))
    return blurred


def _inside(boxes: Tensor, side_px: int) -> Tensor:
    """Which pixels `[B, 1, S, S]` lie in each crop's box: top, left, height, width."""
    line = torch.arange(side_px, device=boxes.device)
    top, left, height, width = boxes[:, :, None].unbind(1)
    rows, columns = (line >= top) & (line < top + height), (line >= left) & (line < left + width)
    return (rows[:, :, None] & columns[:, None])[:, None]


_COLOURING: Final = {"brightness": _brighter, "contrast": _with_contrast, "saturation": _saturated, "hue": _hued}


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
