"""Batches are varied on the device as torchvision varies one crop after another."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from triton_models.training.config import Augmentation
from triton_models.training.data.augmentation import MARGIN, Draws, draw, vary
from triton_models.training.data.batches import TrainingCrops

SIDE = 32
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
EVERYTHING = Augmentation(blur=0.6, noise=0.5, cutout=0.5)


def crops(count: int) -> np.ndarray:
    """Smooth coloured crops with their margin, UINT8 `[N, M, M, 3]`."""
    rng = np.random.default_rng(4)
    coarse = torch.from_numpy(rng.uniform(30, 240, (count, 3, 7, 7)))
    fine = torch.nn.functional.interpolate(coarse, size=round(SIDE * MARGIN), mode="bicubic")
    return fine.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def border_mean(crop: Tensor) -> list[float]:
    edges = torch.cat([crop[:, 0], crop[:, -1], crop[:, :, 0], crop[:, :, -1]], 1)
    found: list[float] = edges.float().mean(1).tolist()
    return found


def stained(crop: Tensor, factors: Tensor) -> Tensor:
    density = -torch.log(crop.clamp(min=1 / 255)).flatten(1)
    change = torch.linalg.inv(STAINS) @ torch.diag(factors) @ STAINS
    return torch.exp(-(change.T @ density)).clamp(0, 1).view_as(crop)


def by_torchvision(crop: Tensor, draws: Draws, at: int) -> Tensor:
    """One crop `[3, M, M]` with its own numbers, without noise and cut-out."""
    crop = functional.affine(
        crop,
        angle=draws.angle[at].item(),
        translate=draws.shift[at].tolist(),
        scale=draws.scale[at].item(),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=border_mean(crop),
    )
    crop = functional.center_crop(crop, [SIDE, SIDE])
    for flipped, flip in zip(draws.flips[at], (functional.horizontal_flip, functional.vertical_flip), strict=True):
        crop = flip(crop) if flipped else crop
    crop = stained(functional.to_dtype(crop, torch.float32, scale=True), draws.stains[at])
    for name in draws.order:
        crop = getattr(functional, f"adjust_{name}")(crop, draws.colours[name][at].item())
    if draws.blur[at]:
        crop = functional.gaussian_blur(crop, [5, 5], [draws.blur[at].item()])
    return crop


@pytest.mark.parametrize("seed", range(3))
def test_each_crop_of_a_batch_is_what_torchvision_makes_of_it(seed: int) -> None:
    how = Augmentation(blur=0.6, noise=0, cutout=0)
    batch = torch.from_numpy(crops(12)).permute(0, 3, 1, 2)
    draws = draw(how, 12, SIDE, torch.Generator().manual_seed(seed))
    varied = vary(batch, draws, SIDE, torch.Generator())
    wanted = torch.stack([by_torchvision(crop, draws, at) for at, crop in enumerate(batch)])
    off = (varied - wanted).abs()
    assert off.mean() < 1e-4
    assert off.max() < 0.02, "a pixel between two grey levels may be rounded to either"


class TurnScaleShift(v2.RandomAffine):
    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        turned: Tensor = functional.affine(inpt, **params, interpolation=self.interpolation, fill=border_mean(inpt))
        return turned


class StainJitter(v2.Transform):
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"factors": 1 + (torch.rand(3) * 2 - 1) * EVERYTHING.stain}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        return stained(inpt, params["factors"])


def one_at_a_time(how: Augmentation) -> v2.Compose:
    """The same variation by torchvision's own chance."""
    shift = how.shift / MARGIN
    return v2.Compose(
        [
            TurnScaleShift(how.rotation_deg, (shift, shift), how.scale, interpolation=InterpolationMode.BILINEAR),
            v2.CenterCrop(SIDE),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            StainJitter(),
            v2.RandomApply([v2.ColorJitter(how.brightness, how.contrast, how.saturation, how.hue)], 0.8),
            v2.RandomApply([v2.GaussianBlur(5, how.blur_sigma)], how.blur),
            v2.RandomApply([v2.GaussianNoise(sigma=how.noise_sigma)], how.noise),
            v2.RandomErasing(how.cutout, scale=(0.02, 0.12), ratio=(0.5, 2.0), value="random"),
        ]
    )


def figures(varied: Tensor) -> np.ndarray:
    """What a crop is told by, `[N, 8]`: colours, spread, sharpness, where it is dark, what lies outside 0…1."""
    inside = varied.clamp(0, 1)
    steps = (inside[..., 1:] - inside[..., :-1]).abs()
    left_right = inside[..., : SIDE // 2].mean((1, 2, 3)) - inside[..., SIDE // 2 :].mean((1, 2, 3))
    up_down = inside[..., : SIDE // 2, :].mean((1, 2, 3)) - inside[..., SIDE // 2 :, :].mean((1, 2, 3))
    outside = ((varied < 0) | (varied > 1)).float().mean((1, 2, 3))
    several = [inside.std((1, 2, 3)), steps.mean((1, 2, 3)), left_right, up_down, outside]
    return torch.cat([inside.mean((2, 3)), torch.stack(several, 1)], 1).numpy()


def test_both_ways_vary_a_crop_alike() -> None:
    crop = crops(1)
    batches = TrainingCrops(np.repeat(crop, 50, 0), [0] * 50, EVERYTHING, SIDE, torch.device("cpu"))
    at_once = torch.cat([batches.batch(np.arange(50), seed)[0] for seed in range(12)])
    with torch.random.fork_rng():
        torch.manual_seed(2)
        singly = one_at_a_time(EVERYTHING)
        pixels = torch.from_numpy(crop[0]).permute(2, 0, 1)
        each = torch.stack([singly(pixels) for _ in range(600)])
    for column, (first, second) in enumerate(zip(figures(at_once).T, figures(each).T, strict=True)):
        assert ks_2samp(first, second).pvalue > 0.001, f"figure {column}"


def test_the_seed_decides_how_a_batch_varies() -> None:
    data = TrainingCrops(crops(6), [0, 1, 2, 0, 1, 2], EVERYTHING, SIDE, torch.device("cpu"))
    places = np.array([4, 1, 5])
    varied, labels = data.batch(places, 7)
    assert labels.tolist() == [1, 1, 2]
    state = torch.get_rng_state()
    again, _ = data.batch(places, 7)
    assert torch.equal(varied, again)
    assert torch.equal(state, torch.get_rng_state()), "dropout draws from the global generator"
    assert not torch.equal(varied, data.batch(places, 8)[0])
    assert varied.mean((1, 2, 3)).tolist() == pytest.approx([0.526, 0.485, 0.531], abs=0.002)


def test_what_is_switched_off_leaves_the_middle_of_the_crop() -> None:
    off = Augmentation(
        rotation_deg=0, scale=(1, 1), shift=0, flips=False, stain=0, brightness=0, contrast=0, saturation=0, hue=0,
        blur=0, noise=0, cutout=0,
    )  # fmt: skip
    whole = crops(3)
    varied, _ = TrainingCrops(whole, [0, 0, 0], off, SIDE, torch.device("cpu")).batch(np.arange(3), 1)
    edge = (whole.shape[1] - SIDE) // 2
    middle = torch.from_numpy(whole[:, edge:-edge, edge:-edge]).permute(0, 3, 1, 2) / 255
    assert torch.equal(varied, middle)
