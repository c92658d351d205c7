"""`morphbatch fuse`: two trained members → a fusion folder.

It holds fusion.json (what a release says of its fusion; logit_fusion reads it in Triton), choice.json (curve,
temperatures, comparison with other weightings) and curve.svg.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from services.atomic import write_text
from services.documents import read_json_object
from services.evaluation.calibration import calibration_error
from services.releases.schema import MEMBERS, Prior
from triton_models.training.config import read_config
from triton_models.training.fusion import figures
from triton_models.training.fusion.calibration import fit_calibration
from triton_models.training.fusion.curve import FusionObjective, macro_scores
from triton_models.training.fusion.fitting import FittedFusion, fit_fusion, softmax
from triton_models.training.fusion.prior import f1_by_mix, fit_strength, prior_of
from triton_models.training.learning.logits import LabelledLogits, LogitsDiffer, check_alike, read_logits
from triton_models.training.learning.train import CONFIG_NAME, LOGITS_NAME, RUN_NAME

FUSION_NAME = "fusion.json"
CHOICE_NAME = "choice.json"
CURVE_NAME = "curve.svg"


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json of a run folder.

    Raises:
        LogitsDiffer: the run has not ended, or the file is damaged.
    """
    path = folder / RUN_NAME
    if not path.is_file():
        raise LogitsDiffer(f"{folder} holds no {RUN_NAME}: its training has not finished")
    record = read_json_object(path, LogitsDiffer)
    if missing := [name for name in ("member", "classes", "counts", "preparation", "weights") if name not in record]:
        raise LogitsDiffer(f"{path} lacks {', '.join(missing)}: it was not written by this version")
    return record


def by_member(runs: tuple[Path, Path]) -> dict[str, Path]:
    """The run folder of each member, EfficientNetV2-S first.

    Raises:
        LogitsDiffer: they are not one of each.
    """
    found = {read_run(folder)["member"]: folder for folder in runs}
    if set(found) != set(MEMBERS):
        raise LogitsDiffer(f"fusion takes one run of each of {', '.join(MEMBERS)}; these are of {', '.join(found)}")
    return {member: found[member] for member in MEMBERS}


def fuse_logits(
    first: LabelledLogits,
    second: LabelledLogits,
    folder: Path,
    objective: FusionObjective = FusionObjective.F1,
    prior: Prior | None = None,
) -> tuple[FittedFusion, dict[str, Any]]:
    """Choose the fusion on the validation logits of EfficientNetV2-S and ResNet50V2, and write the fusion folder.

    With a `prior` its strength is chosen too, of the fused logits; None: they stay as the networks learnt.

    Returns:
        What was fitted, and what choice.json holds.

    Raises:
        LogitsDiffer: the logits are of different images or classes.
    """
    check_alike(first, second)
    fitted = fit_fusion(first.logits, second.logits, first.labels, objective)
    temperatures = dict(zip(MEMBERS, fitted.released_temperatures, strict=True))
    choice = {
        **fitted.document(),
        "cells": len(first.labels),
        "members": {
            member: fitted.curve.values[objective][at].item() for member, at in zip(MEMBERS, (-1, 0), strict=True)
        },
        "ece": _calibration(first, second, fitted),
    }
    served = {"alpha": fitted.alpha, "temperatures": temperatures, "classes": list(first.classes)}
    t1, t2 = fitted.member_temperatures
    joined = fitted.released.join(first.logits.astype(np.float64) / t1, second.logits.astype(np.float64) / t2)
    logits = joined / fitted.fused_temperature
    served["calibration"] = fit_calibration(logits, first.labels).model_dump()
    if prior is not None:
        chosen = fit_strength(logits, first.labels, prior)
        served["prior"] = chosen.model_dump()
        said = (logits + chosen.shift()).argmax(1)
        choice["at_alpha"] = {
            str(name): value for name, value in macro_scores(said, first.labels, len(first.classes)).items()
        }
        choice["macro_f1_by_mix"] = {
            "as_learnt": f1_by_mix(logits, first.labels, prior.model_copy(update={"strength": 0.0})),
            "released": f1_by_mix(logits, first.labels, chosen),
        }
    write_text(folder / CURVE_NAME, figures.fusion_curve(fitted.curve, objective, fitted.scalar_alpha, MEMBERS))
    write_text(folder / CHOICE_NAME, json.dumps(choice, indent=2) + "\n")
    write_text(folder / FUSION_NAME, json.dumps(served, indent=2) + "\n")
    return fitted, choice


def fuse_runs(
    runs: tuple[Path, Path],
    folder: Path,
    objective: FusionObjective = FusionObjective.F1,
    *,
    for_published_mix: bool = False,
) -> tuple[FittedFusion, dict[str, Any]]:
    """`fuse_logits` on the validation logits of two run folders, one of each member, in any order.

    `for_published_mix`: the release is meant for slides with the published set's mix of classes.

    Raises:
        LogitsDiffer: a run is not through, or they are not one of each member on the same images.
        MixUnknown: these runs cannot be meant for that mix.
    """
    ordered = by_member(runs)
    first, second = (read_logits(ordered[member] / LOGITS_NAME) for member in MEMBERS)
    prior = _prior(ordered[MEMBERS[0]]) if for_published_mix else None
    return fuse_logits(first, second, folder, objective, prior)


def _prior(run: Path) -> Prior:
    """Of both members, as they have learnt from the same images: `release build` holds them to that."""
    return prior_of(read_run(run)["counts"], read_config(run / CONFIG_NAME).objective)


def _calibration(first: LabelledLogits, second: LabelledLogits, fitted: FittedFusion) -> dict[str, dict[str, float]]:
    """ECE on the validation images before and after temperature."""
    found = {}
    scaled = []
    for member, part, temperature in zip(MEMBERS, (first, second), fitted.member_temperatures, strict=True):
        logits = part.logits.astype(np.float64)
        scaled.append(logits / temperature)
        found[member] = _before_after(logits, logits / temperature, part)
    joined = fitted.released.join(scaled[0], scaled[1])
    found["fused"] = _before_after(joined, joined / fitted.fused_temperature, first)
    return found


def _before_after(before: Any, after: Any, part: LabelledLogits) -> dict[str, float]:
    return {
        "before": calibration_error(softmax(before), part.labels),
        "after": calibration_error(softmax(after), part.labels),
    }
