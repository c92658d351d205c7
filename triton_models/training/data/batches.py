"""Batches that are a function of (seed, epoch, place) alone, so that a resumed run sees what it would have seen."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triton_models.training.config import Augmentation
from triton_models.training.data.augmentation import draw, vary

_SHARE_FOR_CROPS: Final = 0.5  # of a GPU's free memory; the network needs the rest

Places = NDArray[np.int64]


def seed_of(*parts: int) -> int:
    """A 63-bit seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class TrainingCrops:
    """Training crops in the memory of the device that trains, varied again in each batch.

    Args:
        crops: UINT8 `[N, M, M, 3]`, with their margin; they stay in the host's memory if a GPU has too little.
        labels: class index of each.
        how: they are varied.
        side_px: S, of the varied crops.
        device: that trains.
    """

    def __init__(
        self, crops: NDArray[np.uint8], labels: Sequence[int], how: Augmentation, side_px: int, device: torch.device
    ) -> None:
        fits = device.type == "cpu" or crops.nbytes < _SHARE_FOR_CROPS * torch.cuda.mem_get_info(device)[0]
        held = torch.from_numpy(crops).permute(0, 3, 1, 2)
        self.crops = held.to(device) if fits else held
        self.labels = torch.tensor(labels, device=device)
        self.how = how
        self.side_px = side_px
        self.device = device

    def batch(self, places: Places, seed: int) -> tuple[Tensor, Tensor]:
        """Varied float crops `[B, 3, S, S]` in 0…1 and labels `[B]` on the device; the same for the same seed."""
        at = torch.from_numpy(places)
        crops = self.crops[at.to(self.crops.device)].to(self.device)
        draws = draw(self.how, len(places), self.side_px, torch.Generator().manual_seed(seed))
        noise = torch.Generator(self.device).manual_seed(seed)
        return vary(crops, draws, self.side_px, noise), self.labels[at.to(self.device)]


class EpochBatches:
    """The batches of one epoch, from batch `start` on; with several devices, each device's part of every batch.

    The last, incomplete batch is left out (the next epoch draws another order), unless it is the only one.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch: int,
        seed: int,
        epoch: int,
        start: int = 0,
        balanced: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.labels = np.asarray(labels)
        self.batch = min(batch, len(labels))
        self.seed = seed
        self.epoch = epoch
        self.start = start
        self.balanced = balanced
        self.part = part

    @property
    def in_epoch(self) -> int:
        """Batches of a whole epoch."""
        return len(self.labels) // self.batch

    def __iter__(self) -> Iterator[Places]:
        draw = np.random.default_rng((self.seed, self.epoch))
        if self.balanced:
            share = 1 / np.bincount(self.labels)[self.labels]
            order = draw.choice(len(self.labels), len(self.labels), p=share / share.sum())
        else:
            order = draw.permutation(len(self.labels))
        rank, world = self.part
        for number in range(self.start, self.in_epoch):
            yield order[number * self.batch : (number + 1) * self.batch][rank::world]
