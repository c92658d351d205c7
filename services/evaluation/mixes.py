"""Macro-F1 as it would be on another mix of classes than that of the cells at hand.

How often a class is named falsely depends on how many cells there are of the others: a network that is good where all
classes are equally frequent may be poor on a slide, where the commonest is 44 times as frequent as the rarest.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.taxonomy import CLASS_NAMES, PUBLISHED_MIX

EQUAL: Final = "equal"
PUBLISHED: Final = "published"

Ints = NDArray[np.int64]


def mixes_of(classes: Sequence[str]) -> Mapping[str, tuple[float, ...]]:
    """Shares of `classes` in each mix that they are judged on, by its name: `equal`; of the 18 also `published`."""
    mixes = {EQUAL: (1 / len(classes),) * len(classes)}
    if tuple(classes) == CLASS_NAMES:
        mixes[PUBLISHED] = tuple(cells / sum(PUBLISHED_MIX) for cells in PUBLISHED_MIX)
    return mixes


def f1_by_class(labels: Ints, said: Ints, mix: Sequence[float] | None = None) -> dict[int, float]:
    """F1 = 2·TP ÷ (2·TP + FP + FN) of every class that occurs in `labels` or in `said`, by index.

    `mix` are shares by class index: each cell weighs as much as there would be of its like in so mixed cells, and only
    classes that occur in `labels` are named. None: each cell weighs 1.
    """
    there = np.union1d(labels, said) if mix is None else np.unique(labels)
    weights = np.ones(len(labels))
    if mix is not None:
        weights = (np.asarray(mix) / np.maximum(np.bincount(labels, minlength=len(mix)), 1))[labels]
    result = {}
    for index in there:
        truly, named = labels == index, said == index
        hits = weights[truly & named].sum()
        result[int(index)] = float(2 * hits / (weights[truly].sum() + weights[named].sum()))
    return result


def macro_f1(labels: Ints, said: Ints, mix: Sequence[float] | None = None) -> float:
    """Plain mean of `f1_by_class`."""
    return float(np.mean(list(f1_by_class(labels, said, mix).values())))
