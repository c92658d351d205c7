"""What a compiled form changes in the answers of a release, on labelled crops. Needs the `train` extra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.releases.schema import MEMBERS
from triton_models.forms.difference import difference
from triton_models.training.data.dataset import LabelledImage
from triton_models.training.reports.evaluation import FUSED, score
from triton_models.training.reports.released import ReleasedClassifier


def accuracy_change(
    classifier: ReleasedClassifier,
    images: Sequence[LabelledImage],
    labels: NDArray[np.int64],
    reference: dict[str, NDArray[np.float32]],
    found: dict[str, NDArray[np.float32]],
) -> dict[str, Any]:
    """Both members and fused, from logits `[N, C]` of the ONNX files and of a form: macro-F1, classes, and logits.

    Keys: `macro_f1` and `accuracy` as `{"onnx", "form", "change"}` by classifier, `f1_change` by class (fused), and
    `difference` (see `differences`).
    """
    documents = [score(classifier, images, labels, logits, precision=0.95).document for logits in (reference, found)]
    names = (*MEMBERS, FUSED)
    figures: dict[str, Any] = {
        figure: {
            name: {
                "onnx": documents[0][figure][name],
                "form": documents[1][figure][name],
                "change": documents[1][figure][name] - documents[0][figure][name],
            }
            for name in names
        }
        for figure in ("macro_f1", "accuracy")
    }
    before, after = (document["classifiers"][FUSED]["per_class"] for document in documents)
    figures["f1_change"] = {name: after[name]["f1"] - before[name]["f1"] for name in before}
    figures["difference"] = differences(classifier, reference, found)
    return figures


def differences(
    classifier: ReleasedClassifier, reference: dict[str, NDArray[np.float32]], found: dict[str, NDArray[np.float32]]
) -> dict[str, dict[str, float]]:
    """`difference` of each member's logits, and of the fused probabilities."""
    return {
        **{member: difference(reference[member], found[member]) for member in MEMBERS},
        FUSED: difference(classifier.fused(reference).astype(np.float32), classifier.fused(found).astype(np.float32)),
    }
