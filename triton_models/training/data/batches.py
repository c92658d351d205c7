"""Batches that are a function of (seed, epoch, place) alone, so that a resumed run sees what it would have seen."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

Place = tuple[int, int]  # epoch, index of the image


def seed_of(*parts: int) -> int:
    """A 63-bit seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class VariedCrops(Dataset[tuple[Tensor, int]]):
    """Training crops, each varied again in each epoch, the same way whichever process does it.

    Args:
        crops: UINT8 `[N, M, M, 3]`, with their margin.
        labels: class index of each.
        transform: from UINT8 `[3, M, M]` to float `[3, S, S]`.
        seed: of the run.
    """

    def __init__(self, crops: NDArray[np.uint8], labels: Sequence[int], transform: v2.Compose, seed: int) -> None:
        self.crops = crops
        self.labels = labels
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        epoch, index = place
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, epoch, index))
            crop: Tensor = self.transform(torch.from_numpy(self.crops[index]).permute(2, 0, 1))
        return crop, self.labels[index]


class EpochBatches(Sampler[list[Place]]):
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

    def __len__(self) -> int:
        return self.in_epoch - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        draw = np.random.default_rng((self.seed, self.epoch))
        if self.balanced:
            share = 1 / np.bincount(self.labels)[self.labels]
            order = draw.choice(len(self.labels), len(self.labels), p=share / share.sum())
        else:
            order = draw.permutation(len(self.labels))
        rank, world = self.part
        for number in range(self.start, self.in_epoch):
            places = order[number * self.batch : (number + 1) * self.batch][rank::world]
            yield [(self.epoch, int(index)) for index in places]


def loader(data: VariedCrops, batches: EpochBatches, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Batches of float crops `[B, 3, S, S]` and labels `[B]`."""
    generator = torch.Generator().manual_seed(0)  # or the loader draws a seed from the global generator, unseen
    return DataLoader(data, batch_sampler=batches, num_workers=workers, generator=generator)
