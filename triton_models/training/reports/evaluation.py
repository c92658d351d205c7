"""`morphbatch evaluate classifier`: a release against labelled images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import PermanentError
from services.evaluation.calibration import calibration_error
from services.releases.schema import MEMBERS, Release
from triton_models.training.data.dataset import LabelledImage, fingerprint, read_dataset
from triton_models.training.fusion.fitting import softmax
from triton_models.training.reports import metrics
from triton_models.training.reports.released import ReleasedClassifier

FUSED = "fused"
Floats = NDArray[np.float64]


class ClassesUnknown(PermanentError):
    """The images have classes that the release was not trained on."""

    reason = "classes_unknown"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Probabilities of each classifier (both members, calibrated, and fused) on labelled images, and what follows.

    All three are moved to the mix of classes that the release is meant for.
    """

    document: dict[str, Any]
    probabilities: dict[str, Floats]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def evaluate_release(
    classifier: ReleasedClassifier,
    data: Path,
    splits: Sequence[str] = (),
    precision: float = 0.95,
    step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classify the images of `data` and compare with their labels.

    Args:
        classifier: an opened release.
        data: an image folder or CSV; folder names in any spelling the taxonomy knows.
        splits: only these splits of the data set; empty: all images.
        precision: the share of right answers that the confidence threshold shall yield.
        step: called with (images done, images in all).

    Raises:
        DatasetBroken, ImageUnreadable: the data cannot be read.
        ClassesUnknown: it has a class that the release does not know.
    """
    dataset = read_dataset(data)
    images = dataset.in_splits(splits) if splits else dataset.images
    labels = labels_of(classifier.release, images, data)
    total = len(images)
    logits = classifier.logits(
        [image.path for image in images], None if step is None else lambda done: step(done, total)
    )
    return score(classifier, images, labels, logits, precision)


def labels_of(release: Release, images: Sequence[LabelledImage], data: Path) -> NDArray[np.int64]:
    """Class index of each of `images`, which are of the data set `data`.

    Raises:
        ClassesUnknown: one is of a class that the release does not know.
    """
    unknown = sorted({image.label for image in images} - set(release.classes))
    if unknown:
        raise ClassesUnknown(
            f"{data}: {', '.join(unknown)} is not a class of release {release.id} ({', '.join(release.classes)})"
        )
    return np.array([release.classes.index(image.label) for image in images], np.int64)


def score(
    classifier: ReleasedClassifier,
    images: Sequence[LabelledImage],
    labels: NDArray[np.int64],
    logits: dict[str, NDArray[np.float32]],
    precision: float,
) -> Evaluation:
    """The evaluation of both members' raw logits `[N, classes]` on `images`."""
    release = classifier.release
    shift = 0.0 if release.fusion.prior is None else release.fusion.prior.shift()
    probabilities: dict[str, Floats] = {}
    before: dict[str, float] = {}
    for member in MEMBERS:
        raw = logits[member].astype(np.float64)
        before[member] = calibration_error(softmax(raw), labels)
        probabilities[member] = softmax(raw / classifier.member_temperatures[member] + shift)
    alpha = np.asarray(release.fusion.alpha, np.float64)
    plain = alpha * logits[MEMBERS[0]].astype(np.float64) + (1 - alpha) * logits[MEMBERS[1]]
    before[FUSED] = calibration_error(softmax(plain), labels)
    probabilities[FUSED] = classifier.fused(logits)

    bounds = metrics.intervals(probabilities, labels)
    classifiers: dict[str, Any] = {}
    for name, found in probabilities.items():
        classifiers[name] = metrics.classifier_metrics(found, labels, release.classes)
        classifiers[name]["ece_before_temperature"] = before[name]
        classifiers[name]["interval_95"] = bounds[name]
        point = metrics.working_point(found, labels, precision)
        classifiers[name]["review"] = {
            "precision": precision,
            "threshold": None if point is None else point.threshold,
            "coverage": None if point is None else point.coverage,
            "reached": None if point is None else point.precision,
        }
    best = max(MEMBERS, key=lambda member: (classifiers[member]["macro_f1"], classifiers[member]["accuracy"]))
    measured = fingerprint(images)
    document = {
        "release": release.id,
        "kind": str(release.kind),
        "images": len(images),
        "classes": list(release.classes),
        "data_fingerprint": measured,
        "alpha": release.fusion.alpha,
        "alpha_as_good": release.metrics.get("alpha_as_good"),
        "chose_alpha": measured == release.metrics.get("validation_fingerprint"),
        "macro_f1": {name: found["macro_f1"] for name, found in classifiers.items()},
        "macro_f1_by_mix": {name: found["macro_f1_by_mix"] for name, found in classifiers.items()},
        "accuracy": {name: found["accuracy"] for name, found in classifiers.items()},
        "ece": classifiers[FUSED]["ece"],
        "best_member": best,
        "fused_against_best_member": metrics.paired_test(probabilities[FUSED], probabilities[best], labels),
        "classifiers": classifiers,
    }
    return Evaluation(document, probabilities, labels, release.classes)
