"""How good a classifier is on labelled cells, and how sure one may be of that."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from services.evaluation.calibration import calibration_error
from services.evaluation.mixes import macro_f1, mixes_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES: Final = 2000
FEWEST_KEPT: Final = 20  # a precision measured on fewer cells is no measurement


@dataclass(frozen=True, slots=True)
class Working:
    """Where a confidence threshold puts the service: the share it answers by itself, and how often that is right."""

    threshold: float
    coverage: float
    precision: float


def top_share(probabilities: Floats, labels: Ints, k: int) -> float:
    """Share of cells whose class is among the `k` likeliest."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())


def classifier_metrics(probabilities: Floats, labels: Ints, classes: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of one classifier, as JSON values.

    Means over classes are taken over those that occur in `labels`; a class that is never chosen has precision 0.

    Args:
        probabilities: `[N, C]`.
        labels: class index of each cell.
        classes: names, in index order.
    """
    chosen, there = probabilities.argmax(1), np.unique(labels)
    options: dict[str, Any] = {"labels": there, "zero_division": 0}
    precision, recall, f1, support = precision_recall_fscore_support(labels, chosen, average=None, **options)
    macro = precision_recall_fscore_support(labels, chosen, average="macro", **options)
    weighted = precision_recall_fscore_support(labels, chosen, average="weighted", **options)
    one_hot = labels[:, None] == there
    return {
        "cells": len(labels),
        "accuracy": float(accuracy_score(labels, chosen)),
        "balanced_accuracy": float(recall.mean()),
        "macro_precision": float(macro[0]),
        "macro_recall": float(macro[1]),
        "macro_f1": float(macro[2]),
        "macro_f1_by_mix": {mix: macro_f1(labels, chosen, shares) for mix, shares in mixes_of(classes).items()},
        "weighted_precision": float(weighted[0]),
        "weighted_recall": float(weighted[1]),
        "weighted_f1": float(weighted[2]),
        "macro_average_precision": float(average_precision_score(one_hot, probabilities[:, there], average="macro")),
        "top_2": top_share(probabilities, labels, min(2, len(classes))),
        "ece": calibration_error(probabilities, labels),
        "cross_entropy": float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean()),
        "per_class": {
            classes[index]: {
                "precision": float(precision[at]),
                "recall": float(recall[at]),
                "f1": float(f1[at]),
                "support": int(support[at]),
            }
            for at, index in enumerate(there)
        },
        "confusion": confusion_matrix(labels, chosen, labels=range(len(classes))).tolist(),
    }


def _resampled(labels: Ints, choices: list[Ints], classes: int, seed: int) -> Floats:
    """Accuracy, balanced accuracy and macro-F1 `[resamples, classifiers, 3]` on cells drawn with replacement."""
    draw = np.random.default_rng(seed)
    found = np.empty((RESAMPLES, len(choices), 3))
    for sample in range(RESAMPLES):
        picked = draw.integers(0, len(labels), len(labels))
        truth = labels[picked]
        for at, chosen in enumerate(choices):
            flat = np.bincount(truth * classes + chosen[picked], minlength=classes * classes)
            table = flat.reshape(classes, classes)
            hits, truths, picks = np.diag(table), table.sum(1), table.sum(0)
            there = truths > 0
            found[sample, at] = (
                hits.sum() / len(labels),
                (hits[there] / truths[there]).mean(),
                (2 * hits[there] / (truths[there] + picks[there])).mean(),
            )
    return found


def intervals(probabilities: dict[str, Floats], labels: Ints, seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """95 % percentile bootstrap intervals (cells drawn with replacement) of each classifier's main figures."""
    names = list(probabilities)
    classes = probabilities[names[0]].shape[1]
    drawn = _resampled(labels, [probabilities[name].argmax(1) for name in names], classes, seed)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: {
            figure: [float(low[at, number]), float(high[at, number])]
            for number, figure in enumerate(("accuracy", "balanced_accuracy", "macro_f1"))
        }
        for at, name in enumerate(names)
    }


def paired_test(first: Floats, second: Floats, labels: Ints, seed: int = 0) -> dict[str, Any]:
    """Whether the first classifier is better than the second on the same cells.

    McNemar's exact test of accuracy, on the cells that only one has right; and the paired bootstrap of macro-F1: the
    95 % interval of the difference, and the share of resamples in which the first is not better.
    """
    right = first.argmax(1) == labels, second.argmax(1) == labels
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    split = only_first + only_second
    drawn = _resampled(labels, [first.argmax(1), second.argmax(1)], first.shape[1], seed)[..., 2]
    gain = drawn[:, 0] - drawn[:, 1]
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": float(binomtest(only_first, split, 0.5).pvalue) if split else 1.0,
        "macro_f1_gain_95": [float(value) for value in np.percentile(gain, [2.5, 97.5])],
        "macro_f1_share_not_better": float((gain <= 0).mean()),
    }


def risk_coverage(probabilities: Floats, labels: Ints) -> tuple[Floats, Floats, Floats]:
    """Thresholds, falling, with the coverage and the risk (share of errors) of the cells at or above each."""
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    kept = np.arange(1, len(labels) + 1)
    risk = np.cumsum(wrong[order]) / kept
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # cells of one confidence go together
    return ordered[ends], kept[ends] / len(labels), risk[ends]


def working_point(probabilities: Floats, labels: Ints, precision: float) -> Working | None:
    """The least confidence at which the cells kept are right as often as `precision`; the others go to a human.

    None: no threshold that keeps at least 20 cells reaches it.
    """
    thresholds, coverage, risk = risk_coverage(probabilities, labels)
    reached = np.flatnonzero((1 - risk >= precision) & (coverage * len(labels) >= FEWEST_KEPT))
    if not len(reached):
        return None
    last = reached[-1]
    return Working(float(thresholds[last]), float(coverage[last]), float(1 - risk[last]))
