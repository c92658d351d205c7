"""Cutting a data set into training and validation: stratified, by specimen, by seed."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from triton_models.training.config import Data
from triton_models.training.data.dataset import Dataset, DatasetBroken, LabelledImage


def fold_numbers(images: Sequence[LabelledImage], folds: int, seed: int) -> list[int]:
    """The fold `0 … folds - 1` of each image.

    All images of a specimen share a fold; an image without one is a specimen of its own. Classes are spread as evenly
    as that allows. The same images and seed give the same folds.

    Raises:
        DatasetBroken: there are fewer specimens than folds, or a class has fewer images than folds.
    """
    groups = [image.specimen or image.path.as_posix() for image in images]
    if len(set(groups)) < folds:
        raise DatasetBroken(f"{len(set(groups))} specimens cannot be split into {folds} folds")
    labels = [image.label for image in images]
    rare = sorted({label for label in labels if labels.count(label) < folds})
    if rare:
        raise DatasetBroken(f"{', '.join(rare)}: fewer images than the {folds} folds; use fewer folds or more images")
    numbers = np.empty(len(images), np.int64)
    cutter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(cutter.split(np.zeros(len(images)), labels, groups)):
        numbers[held] = number
    return [int(number) for number in numbers]


def cut(dataset: Dataset, config: Data) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """The images that are trained and validated on.

    A data set that names splits is cut along them; with an empty `config.validation`, or without splits, fold
    `config.fold` of `config.folds` is held back.

    Raises:
        DatasetBroken: a split is missing, or a specimen is in both parts.
    """
    if dataset.splits and config.validation:
        train, validation = dataset.in_splits(config.train), dataset.in_splits(config.validation)
    else:
        pool = dataset.in_splits(config.train) if dataset.splits else dataset.images
        numbers = fold_numbers(pool, config.folds, config.split_seed)
        train = tuple(image for image, number in zip(pool, numbers, strict=True) if number != config.fold)
        validation = tuple(image for image, number in zip(pool, numbers, strict=True) if number == config.fold)
    shared = {image.specimen for image in train} & {image.specimen for image in validation} - {None}
    if shared:
        names = ", ".join(sorted(name for name in shared if name)[:5])
        raise DatasetBroken(
            f"{len(shared)} specimens are trained and validated on ({names}); run `morphbatch data check`"
        )
    return train, validation
