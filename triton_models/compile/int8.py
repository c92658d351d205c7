"""`openvino-int8`: both networks quantised by NNCF, kept only if the release stays as good. Needs the `train` extra.

NNCF's post-training quantisation with accuracy control (`nncf.quantize_with_accuracy_control`): convolutions and
matrix products become int8, weights and activations, with ranges seen on training crops; while a member's macro-F1 on
the validation crops is more than `max_drop` below that of fp32, or more than 2 % of them change their class, the layers
that hurt most go back to fp32. What counts at last is the fused answer of what was written to disk: that is compared
with the ONNX files, and refused if it lost more than `max_drop`, or changed the class of more than 2 %.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import nncf
import numpy as np
import openvino
from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from services.errors import ConfigurationError
from services.releases.schema import MEMBERS
from triton_models.compile.accuracy import accuracy_change
from triton_models.compile.openvino_network import OpenVinoNetwork, read_network
from triton_models.export.compression import stored_codes
from triton_models.forms.compact import make_compact
from triton_models.forms.difference import AGREEMENT, FormDiffers, fault
from triton_models.forms.form import OPENVINO_INT8, Form, digests, new_form, onnx_hashes, write_form
from triton_models.training.data.dataset import LabelledImage, fingerprint, read_dataset
from triton_models.training.data.preparation import read_crops
from triton_models.training.fusion.fitting import softmax
from triton_models.training.reports.evaluation import FUSED, labels_of
from triton_models.training.reports.released import ReleasedClassifier, open_release

MAX_DROP: Final = 0.005
_BATCH: Final = 16
# What stays in fp32. Each crop's own mean and spread must: rounded, they cost 2 % of all cells their class.
_ELEMENTWISE: Final = ("Add", "Subtract", "Multiply", "Divide", "Sqrt", "ReduceMean", "BatchNormInference")
_RANKED_ON: Final = 256  # crops by which layers are ranked when some must go back to fp32


class SplitsOverlap(ConfigurationError, ValueError):
    """The accuracy of the quantised networks would be measured on the crops that set their ranges."""

    reason = "splits_overlap"


class AccuracyLost(ConfigurationError):
    """In int8 the release would classify worse than is allowed; no form was written."""

    reason = "accuracy_lost"


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How to quantise. `cells` training crops, as many of each class as can be, set the ranges of activations."""

    data: Path
    calibrate: tuple[str, ...] = ("train",)
    check: tuple[str, ...] = ("val",)
    cells: int = 300
    max_drop: float = MAX_DROP
    seed: int = 0


def compile_int8(
    release_dir: Path, how: Quantisation, *, replace: bool = False, say: Callable[[str], None] = lambda _: None
) -> Form:
    """Write the form `openvino-int8` of the release in `release_dir`.

    Args:
        release_dir: the release, of any taxonomy.
        how: see `Quantisation`.
        replace: write over one that is there.
        say: called with what is being done.

    Raises:
        SplitsOverlap: a split is named for both.
        AccuracyLost: fused macro-F1 on the `check` splits drops by more than `max_drop`; the message has the figures.
        FormDiffers: too many cells change their class, though as many are right.
        DatasetBroken, ClassesUnknown, ImageUnreadable: the data cannot be used.
        ReleaseBroken: the folder is not what its document says.
        AlreadyThere: the form exists, and `replace` is not set.
    """
    if set(how.calibrate) & set(how.check):
        raise SplitsOverlap("splits that calibrate cannot also check the accuracy")
    classifier = open_release(release_dir)
    dataset = read_dataset(how.data)
    ranged = drawn_evenly(dataset.in_splits(how.calibrate), how.cells, how.seed)
    checked = dataset.in_splits(how.check)
    labels = labels_of(classifier.release, checked, how.data)
    crops = read_crops([image.path for image in checked], classifier.preparation)
    calibration = read_crops([image.path for image in ranged], classifier.preparation)
    with new_form(release_dir, OPENVINO_INT8, replace=replace) as folder:
        reference, found, layers = {}, {}, {}
        for member in MEMBERS:
            say(f"{member}: quantising, checked on {len(checked)} crops")
            onnx = release_dir / classifier.release.members[member].onnx
            reference[member] = classifier.logits_of(member, crops)
            quantised = _quantise(onnx, calibration, crops, labels, reference[member], how)
            (folder / member).mkdir()
            openvino.save_model(quantised, folder / member / "model.xml", compress_to_fp16=False)
            say(f"{member}: comparing what was written with the ONNX file")
            written = OpenVinoNetwork(folder / member / "model.xml", classifier.release.crop_px)
            layers[member] = written.layers()
            found[member] = written.logits(crops)
        measured = {
            "calibration": {"cells": len(ranged), "fingerprint": fingerprint(ranged)},
            "check": {"cells": len(checked), "fingerprint": fingerprint(checked)},
            "max_drop": how.max_drop,
            "layers": layers,
            **accuracy_change(classifier, checked, labels, reference, found),
        }
        _refuse_if_worse(measured, how.max_drop)
        files = digests(folder)
        for member in MEMBERS:
            onnx = release_dir / classifier.release.members[member].onnx
            make_compact(folder / member / "model.bin", onnx, stored_codes(onnx))
        return write_form(folder, _document(classifier, files, measured))


def drawn_evenly(images: Sequence[LabelledImage], cells: int, seed: int) -> list[LabelledImage]:
    """`cells` of `images`, drawn in turn from each class, so that rare ones set their ranges too."""
    order = np.random.default_rng(seed).permutation(len(images))
    ranks: dict[str, int] = {}
    placed = []
    for index in order:
        label = images[index].label
        ranks[label] = ranks.get(label, -1) + 1
        placed.append((ranks[label], label, images[index]))
    placed.sort(key=lambda place: place[:2])
    return [image for _, _, image in placed[:cells]]


def _quantise(
    onnx: Path,
    calibration: NDArray[np.uint8],
    crops: NDArray[np.uint8],
    labels: NDArray[np.int64],
    reference: NDArray[np.float32],
    how: Quantisation,
) -> Any:
    """`reference`: logits `[N, C]` of the ONNX file for `crops`, whose classes are `labels`."""
    chosen = reference.argmax(1)

    def worth(network: Any, cells: Iterable[int]) -> tuple[float, list[float]]:
        places = np.fromiter(cells, np.int64)
        request = network.create_infer_request()
        found = np.concatenate(
            [
                request.infer(crops[places[at : at + _BATCH]])[0].astype(np.float64)
                for at in range(0, len(places), _BATCH)
            ]
        )
        truth, before, after = labels[places], chosen[places], found.argmax(1)
        # The worth of each cell, by which NNCF picks those that rank the layers. Its other way of ranking, by logits,
        # puts those layers back first whose return helps least (3.4.0).
        kept = softmax(found)[np.arange(len(places)), before]
        return worth_kept(truth, before, after, how.max_drop), [float(value) for value in kept]

    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf.quantize_with_accuracy_control(
        read_network(onnx),
        nncf.Dataset([crop[None] for crop in calibration]),
        nncf.Dataset(list(range(len(crops))), lambda place: crops[place][None]),
        worth,
        max_drop=1.0,
        drop_type=nncf.DropType.ABSOLUTE,
        preset=nncf.QuantizationPreset.MIXED,  # SiLU is lopsided: asymmetric activations
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=nncf.IgnoredScope(types=list(_ELEMENTWISE), validate=False),  # not every network has each
        subset_size=len(calibration),
        advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
            ranking_subset_size=_RANKED_ON, num_ranking_workers=1
        ),
    )


def worth_kept(truth: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64], max_drop: float) -> float:
    """1: a member's classes are as `before`. 0: macro-F1 drops by `max_drop`, or as many cells as may change do."""

    def macro_f1(classes: NDArray[np.int64]) -> float:
        there = np.unique(truth)
        return float(f1_score(truth, classes, labels=there, average="macro", zero_division=0))

    drop = (macro_f1(before) - macro_f1(after)) / max(max_drop, 1e-9)
    changed = float((before != after).mean()) / (1 - AGREEMENT["int8"])
    return 1 - max(drop, changed)


def _refuse_if_worse(measured: dict[str, Any], max_drop: float) -> None:
    changes = ", ".join(
        f"{name} {found['onnx']:.4f} → {found['form']:.4f}" for name, found in measured["macro_f1"].items()
    )
    worst = sorted(measured["f1_change"].items(), key=lambda item: item[1])[:3]
    classes = ", ".join(f"{name} {change:+.3f}" for name, change in worst)
    if -measured["macro_f1"][FUSED]["change"] > max_drop:
        raise AccuracyLost(
            f"int8 loses more than {max_drop} of macro-F1: {changes}; most in {classes}. More --cells may help;"
            " otherwise the release stays in fp32"
        )
    wrong = fault("int8", measured["difference"])
    if wrong is not None:
        raise FormDiffers(f"int8 does not answer like the ONNX files: {wrong}; macro-F1: {changes}")


def _document(classifier: ReleasedClassifier, files: dict[str, Any], measured: dict[str, Any]) -> Form:
    release = classifier.release
    return Form(
        form=OPENVINO_INT8,
        target="openvino-int8",
        precision="int8",
        created=datetime.now(UTC),
        release_id=release.id,
        classes=release.classes,
        crop_px=release.crop_px,
        onnx=onnx_hashes(release),
        tool="nncf.quantize_with_accuracy_control",
        versions={name: version(name) for name in ("nncf", "openvino")},
        members={member: f"{member}/model.xml" for member in MEMBERS},
        files=files,
        measured=measured,
    )
