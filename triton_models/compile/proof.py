"""Does each compiled form answer what the ONNX files answer, on real crops? And what is int8 worth? Needs `train`.

ONNX Runtime on the CPU is the reference.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.releases.schema import MEMBERS, Release
from triton_models.compile import gpu, tensorrt
from triton_models.compile.accuracy import accuracy_change, differences
from triton_models.compile.openvino_network import OpenVinoNetwork
from triton_models.export.self_test import drawn_crops
from triton_models.forms.difference import FormDiffers, fault
from triton_models.forms.form import (
    OPENVINO_FP32,
    TORCH,
    Form,
    FormMissing,
    ServedForm,
    forms_of,
    place_files,
    read_form,
)
from triton_models.training.data.dataset import read_dataset
from triton_models.training.data.preparation import read_crops
from triton_models.training.reports.evaluation import labels_of
from triton_models.training.reports.released import ReleasedClassifier, open_network, open_release


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found of one form. `fault` None and `not_run` None: it is proven."""

    form: str
    precision: str
    cells: int
    differences: dict[str, dict[str, float]]
    fault: str | None = None
    not_run: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "form": self.form,
            "precision": self.precision,
            "cells": self.cells,
            "proven": self.fault is None and self.not_run is None,
            "fault": self.fault,
            "not_run": self.not_run,
            "difference": self.differences,
        }


def prove_forms(
    release_dir: Path, data: Path | None = None, cells: int = 256, wanted: Sequence[str] = ()
) -> list[Proof]:
    """Compare every form of a release with its ONNX files; `openvino-fp32` is always one, `torch-fp16` if it is wanted.

    Args:
        release_dir: folder of the release, of any taxonomy.
        data: images to take `cells` of, evenly spaced; None: drawn cells.
        cells: how many crops.
        wanted: forms that are asked for.

    Raises:
        ReleaseBroken, FormBroken: the bytes are not what the documents say.
        DatasetBroken, ImageUnreadable: the images cannot be read.
    """
    reference = _Reference.of(release_dir, data, cells)
    classifier, crops = reference.classifier, reference.crops
    release = classifier.release
    forms = [ServedForm(OPENVINO_FP32), *(ServedForm(TORCH) for _ in {TORCH} & set(wanted))]
    forms += [ServedForm(name, read_form(release_dir, release, name)) for name in forms_of(release_dir)]
    proofs = []
    for form in forms:
        name, precision = form.name, form.name.rpartition("-")[2] if form.document is None else form.document.precision
        try:
            found = _logits(release_dir, release, form, crops)
        except tensorrt.MachineUnsuited as error:
            proofs.append(Proof(name, precision, 0, {}, not_run=str(error)))
            continue
        away = differences(classifier, reference.logits, found)
        proofs.append(Proof(name, precision, len(crops), away, fault(precision, away)))
    return proofs


def require_proven(release: Release, proofs: Sequence[Proof], wanted: Sequence[str] = ()) -> None:
    """Refuse a release of which a form is not what its ONNX files are, or one of `wanted` could not be run here.

    Raises:
        FormDiffers: names each form and by how much it is off.
        FormMissing: a wanted form is not there.
    """
    missing = set(wanted) - {proof.form for proof in proofs}
    if missing:
        raise FormMissing(f"release {release.id} has no form {', '.join(sorted(missing))}")
    faults = [f"{proof.form}: {proof.fault}" for proof in proofs if proof.fault is not None]
    faults += [f"{p.form} was not verified: {p.not_run}" for p in proofs if p.not_run is not None and p.form in wanted]
    if faults:
        raise FormDiffers(f"release {release.id}: {'; '.join(faults)}")


def compile_and_prove_tensorrt(
    release_dir: Path, data: Path | None, cells: int, *, replace: bool, say: Callable[[str], None]
) -> Form:
    """Build the TensorRT form of the release on this machine, kept only if it answers what the ONNX files answer.

    Raises:
        FormDiffers: it does not.
        MachineUnsuited, EngineFailed, AlreadyThere: see `tensorrt.compile_tensorrt`.
    """
    reference = _Reference.of(release_dir, data, cells)
    release = reference.classifier.release

    def prove(folder: Path, form: Form) -> dict[str, Any]:
        return reference.compared(form.form, tensorrt.run_form(release_dir, release, form, reference.crops, folder))

    return tensorrt.compile_tensorrt(release_dir, release, prove, replace=replace, say=say)


def compile_and_prove_rtx(
    release_dir: Path,
    capabilities: Sequence[str],
    data: Path | None,
    cells: int,
    *,
    replace: bool,
    say: Callable[[str], None],
) -> Form:
    """Build the form `tensorrt-rtx-fp16`, kept only if it answers what the ONNX files answer. Needs the `rtx` extra.

    The FP16 networks are run by ONNX Runtime on the CPU; the engines on the GPU, where there is one that they are for.

    Raises:
        FormDiffers: it does not.
        EngineFailed, AlreadyThere: see `tensorrt_rtx.compile_rtx`.
    """
    from triton_models.compile.tensorrt_rtx import compile_rtx

    reference = _Reference.of(release_dir, data, cells)
    classifier = reference.classifier

    def prove(halves: dict[str, Path], folder: Path, form: Form) -> dict[str, Any]:
        say(f"comparing the answers for {cells} crops")
        rounded = dataclasses.replace(
            classifier, networks={member: open_network(path) for member, path in halves.items()}
        )
        found = {member: rounded.logits_of(member, reference.crops) for member in MEMBERS}
        on_cpu = reference.compared("FP16", found)
        try:
            found = gpu.run_rtx(release_dir, form, reference.crops, folder)
        except tensorrt.MachineUnsuited as error:
            return {"fp16_on_cpu": on_cpu, "on_gpu": {"not_run": str(error)}}
        return {"fp16_on_cpu": on_cpu, "on_gpu": reference.compared(form.form, found)}

    return compile_rtx(release_dir, classifier.release, capabilities, prove, replace=replace, say=say)


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the ONNX files of a release answer for some crops."""

    classifier: ReleasedClassifier
    crops: NDArray[np.uint8]
    logits: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, release_dir: Path, data: Path | None, cells: int) -> Self:
        classifier = open_release(release_dir)
        crops = _crops(classifier, data, cells)
        return cls(classifier, crops, {member: classifier.logits_of(member, crops) for member in MEMBERS})

    def compared(self, what: str, found: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        """What `what`, of lower precision, changes; raises `FormDiffers` if that is too much."""
        away = differences(self.classifier, self.logits, found)
        if (wrong := fault("fp16", away)) is not None:
            raise FormDiffers(f"{what} does not answer like the ONNX files of {self.classifier.release.id}: {wrong}")
        return {"cells": len(self.crops), "difference": away}


def _crops(classifier: ReleasedClassifier, data: Path | None, cells: int) -> NDArray[np.uint8]:
    """`cells` crops of drawn cells, or of the images of `data`, evenly spaced."""
    if data is None:
        release = classifier.release
        return drawn_crops(release.classes, release.crop_um, release.crop_px, cells)
    images = read_dataset(data).images
    places = np.unique(np.linspace(0, len(images) - 1, cells).astype(int))
    return read_crops([images[place].path for place in places], classifier.preparation)


def _logits(
    release_dir: Path, release: Release, form: ServedForm, crops: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    if form.name == TORCH:
        return gpu.run_torch(release_dir, release, crops)
    if form.document is not None and form.document.target == "tensorrt":
        return tensorrt.run_form(release_dir, release, form.document, crops)
    if form.document is not None and form.document.target == "tensorrt-rtx":
        return gpu.run_rtx(release_dir, form.document, crops)
    return {member: _opened(release_dir, release, form.document, member).logits(crops) for member in MEMBERS}


def _opened(release_dir: Path, release: Release, form: Form | None, member: str) -> OpenVinoNetwork:
    if form is None:
        return OpenVinoNetwork(release_dir / release.members[member].onnx, release.crop_px)
    with tempfile.TemporaryDirectory(prefix="morphbatch-form-") as scratch:
        place_files(release_dir, release, form, member, Path(scratch))
        return OpenVinoNetwork(Path(scratch) / Path(form.members[member]).name, release.crop_px)


def compare_speed_and_accuracy(
    release_dir: Path,
    name: str,
    data: Path,
    splits: Sequence[str] = (),
    rounds: int = 5,
    cells: int = 256,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`openvino-fp32` against the OpenVINO form `name`: speed in turns on the same crops, accuracy on all of `data`.

    Args:
        release_dir: folder of the release.
        name: the form.
        data: labelled images.
        splits: only these splits; empty: all.
        rounds: how often each is timed, after one round that is not.
        cells: crops that are timed.
        say: called with what is being done.

    Returns:
        `crops_per_s` by form and network (`pair`: both, one after the other), `speed_ratio` by network, each as
        `{"median", "min", "max"}` over the rounds; what `accuracy.accuracy_change` gives; `layers` by member.

    Raises:
        FormMissing, FormBroken, ReleaseBroken, DatasetBroken, ClassesUnknown: see there.
    """
    classifier = open_release(release_dir)
    release = classifier.release
    form = read_form(release_dir, release, name)
    dataset = read_dataset(data)
    images = dataset.in_splits(tuple(splits)) if splits else dataset.images
    labels = labels_of(release, images, data)
    crops = read_crops([image.path for image in images], classifier.preparation)
    networks = {
        which: {member: _opened(release_dir, release, of, member) for member in MEMBERS}
        for which, of in ((OPENVINO_FP32, None), (name, form))
    }
    say(f"timing {rounds} rounds of {min(cells, len(crops))} crops")
    seconds = _timed(networks, np.resize(crops, (cells, *crops.shape[1:])), rounds)
    say(f"classifying {len(crops)} crops with each")
    fp32, found = ({m: networks[which][m].logits(crops) for m in MEMBERS} for which in (OPENVINO_FP32, name))
    return {
        "release": release.id,
        "kind": str(release.kind),
        "form": name,
        "against": OPENVINO_FP32,
        "cells": len(images),
        "cores": len(os.sched_getaffinity(0)),
        "load_1_min": os.getloadavg()[0],
        "crops_per_s": {
            which: {network: _spread([cells / took for took in taken]) for network, taken in found_of.items()}
            for which, found_of in seconds.items()
        },
        "speed_ratio": {
            network: _spread([a / b for a, b in zip(seconds[OPENVINO_FP32][network], taken, strict=True)])
            for network, taken in seconds[name].items()
        },
        **accuracy_change(classifier, images, labels, fp32, found),
        "layers": {member: networks[name][member].layers() for member in MEMBERS},
    }


def _timed(
    networks: dict[str, dict[str, OpenVinoNetwork]], crops: NDArray[np.uint8], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds for `crops` by form and network, a round each; forms take turns, so that both meet the same machine."""
    seconds: dict[str, dict[str, list[float]]] = {
        which: {network: [] for network in (*MEMBERS, "pair")} for which in networks
    }
    for turn in range(rounds + 1):
        for which, members in networks.items():
            taken = {}
            for member, network in members.items():
                start = time.perf_counter()
                network.logits(crops)
                taken[member] = time.perf_counter() - start
            if turn:
                for member, took in {**taken, "pair": sum(taken.values())}.items():
                    seconds[which][member].append(took)
    return seconds


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
