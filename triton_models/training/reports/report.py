"""The HTML report of an evaluation: one file, nothing from elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np

from services.atomic import write_text
from services.evaluation.calibration import bands
from services.releases.fusion import weight_text
from services.releases.schema import ReleaseKind
from triton_models.training.fusion import figures
from triton_models.training.reports import metrics, pages
from triton_models.training.reports.evaluation import FUSED, Evaluation

_WARNING = {
    ReleaseKind.UNTRAINED: "Untrained networks: these figures mean nothing.",
    ReleaseKind.DEMONSTRATION: "Demonstration, generated images, not for clinical use.",
}
_FIGURES = (
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("macro precision", "macro_precision"),
    ("macro recall", "macro_recall"),
    ("macro F1", "macro_f1"),
    ("weighted precision", "weighted_precision"),
    ("weighted recall", "weighted_recall"),
    ("weighted F1", "weighted_f1"),
    ("macro average precision", "macro_average_precision"),
    ("class among the two most probable", "top_2"),
    ("ECE before temperature", "ece_before_temperature"),
    ("ECE", "ece"),
    ("cross-entropy", "cross_entropy"),
)


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report of `evaluation` as the page `path`."""
    document = evaluation.document
    classifiers: dict[str, Any] = document["classifiers"]
    names = list(classifiers)
    parts = []
    if document["kind"] in _WARNING:
        parts.append(pages.paragraph(_WARNING[document["kind"]], "fault"))
    parts.append(
        pages.paragraph(
            f"Release {document['release']} on {document['images']} images "
            f"(fingerprint {document['data_fingerprint']}). "
            f"Fused with α = {weight_text(document['alpha'])}: the weight of EfficientNetV2-S."
        )
    )
    if document["alpha_as_good"] is not None:
        low, high = document["alpha_as_good"]
        parts.append(
            pages.paragraph(
                f"Of one α for all classes, those from {low:g} to {high:g} were as good as the best within one "
                "standard error, on the images that it was chosen on."
            )
        )
    if document["chose_alpha"]:
        parts.append(
            pages.paragraph(
                "α, the temperatures and the epoch were chosen on these images: new images would give lower figures.",
                "remark",
            )
        )
    parts.append(pages.heading("Figures"))
    shown = [(title, [classifiers[name][key] for name in names]) for title, key in _FIGURES]
    shown += [
        (f"macro F1, {mix} mix of classes", [classifiers[name]["macro_f1_by_mix"][mix] for name in names])
        for mix in classifiers[FUSED]["macro_f1_by_mix"]
    ]
    parts.append(pages.table(("", *names), [(title, *map(float, values)) for title, values in shown]))
    parts.append(pages.heading("95 % intervals (bootstrap over cells)"))
    rows = [
        (
            title,
            *("{:.3f} – {:.3f}".format(*classifiers[name]["interval_95"][key]) for name in names),
        )
        for title, key in _FIGURES
        if key in classifiers[names[0]]["interval_95"]
    ]
    parts.append(pages.table(("", *names), rows))
    test = document["fused_against_best_member"]
    low, high = test["macro_f1_gain_95"]
    parts.append(
        pages.paragraph(
            f"Fused against {document['best_member']} on the same cells: {test['only_first_right']} cells are right "
            f"only after fusion, {test['only_second_right']} only by the member (McNemar p = {test['mcnemar_p']:.3g}); "
            f"macro-F1 gain {low:+.3f} to {high:+.3f} (95 %, paired bootstrap)."
        )
    )
    parts += _pictures(evaluation)
    parts.append(pages.heading("Classes"))
    parts.append(
        pages.table(
            ("class", "cells", *(f"{figure} {name}" for name in names for figure in ("precision", "recall", "F1"))),
            [
                (
                    label,
                    int(row["support"]),
                    *(
                        float(classifiers[n]["per_class"][label][f])
                        for n in names
                        for f in ("precision", "recall", "f1")
                    ),
                )
                for label, row in classifiers[FUSED]["per_class"].items()
            ],
        )
    )
    write_text(path, pages.page(f"Classifier evaluation: {document['release']}", parts))


def _pictures(evaluation: Evaluation) -> list[str]:
    classifiers = evaluation.document["classifiers"]
    review = classifiers[FUSED]["review"]
    banded = {name: bands(found, evaluation.labels) for name, found in evaluation.probabilities.items()}
    curves = {}
    for name, found in evaluation.probabilities.items():
        _, coverage, risk = metrics.risk_coverage(found, evaluation.labels)
        curves[name] = coverage, risk
    table = np.array(classifiers[FUSED]["confusion"])
    if review["threshold"] is None:
        sentence = f"No threshold that keeps at least 20 cells reaches a precision of {review['precision']:g}."
    else:
        sentence = (
            f"At a confidence of {review['threshold']:.3f} and above, {review['coverage']:.1%} of the cells are kept "
            f"and {review['reached']:.1%} of them are right; the others go to human review."
        )
    return [
        pages.heading("Confusion, fused"),
        pages.drawing(figures.confusion(table, evaluation.classes), "rows: truth, columns: predicted"),
        pages.heading("F1 by class"),
        pages.drawing(figures.per_class(classifiers), "in brackets: cells of the class"),
        pages.heading("Reliability"),
        pages.drawing(figures.reliability(banded), "each dot: a fifteenth of the cells, by confidence"),
        pages.heading("Risk and coverage"),
        pages.drawing(figures.risk_coverage(curves, review["precision"]), "dashed: the target risk"),
        pages.paragraph(sentence),
    ]
