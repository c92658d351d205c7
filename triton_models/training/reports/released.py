"""Both members of a release, run from their ONNX files on image files: evaluation sees what is served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_state

from services.documents import read_json_object, read_model
from services.releases.schema import MEMBERS, Release, ReleaseBroken, verify_release
from triton_models.training.config import Fit, Preparation
from triton_models.training.data.preparation import read_crops

PREPARATION_NAME: Final = "training/preparation.json"
CHOICE_IN_RELEASE: Final = "fusion/choice.json"
_BATCH: Final = 32
_NOT_ONNX: Final = (
    *(onnx_state.InvalidProtobuf, onnx_state.InvalidGraph, onnx_state.InvalidArgument),
    *(onnx_state.NotImplemented, onnx_state.Fail),
)


@dataclass(frozen=True, slots=True)
class ReleasedClassifier:
    """A verified release. `member_temperatures` are of each member alone, before fusing."""

    release: Release
    preparation: Preparation
    member_temperatures: dict[str, float]
    networks: dict[str, Any]

    def logits(
        self, paths: Sequence[Path], step: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits `[N, classes]` of each member for image files; `step` is called with the images done.

        Raises:
            ImageUnreadable: names the file.
        """
        parts: dict[str, list[NDArray[np.float32]]] = {member: [] for member in MEMBERS}
        for start in range(0, len(paths), _BATCH):
            crops = read_crops(paths[start : start + _BATCH], self.preparation)
            for member in MEMBERS:
                parts[member].append(self.logits_of(member, crops))
            if step is not None:
                step(min(start + _BATCH, len(paths)))
        return {member: np.concatenate(found) for member, found in parts.items()}

    def logits_of(self, member: str, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits `[N, classes]` of one member for `crops` `[N, S, S, 3]`."""
        return np.concatenate(
            [
                self.networks[member].run(["LOGITS"], {"CROPS": crops[start : start + _BATCH]})[0]
                for start in range(0, len(crops), _BATCH)
            ]
        )

    def fused(self, logits: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """Probabilities `[N, classes]` by the formula that is served."""
        return self.release.fusion.probabilities(logits).astype(np.float64)


def open_release(folder: Path, threads: int = 0) -> ReleasedClassifier:
    """Load a release, of any taxonomy, for evaluation.

    A release that does not say how images are prepared was trained on crops of its own size: they are resized to it.

    Raises:
        ReleaseBroken: the folder is not what its document says.
    """
    release = verify_release(folder, classes=None)
    preparation = Preparation(fit=Fit.STRETCH, side_px=release.crop_px)
    if PREPARATION_NAME in release.files:
        preparation = read_model(folder / PREPARATION_NAME, Preparation, ReleaseBroken)
    temperatures = dict(release.fusion.temperatures)
    if CHOICE_IN_RELEASE in release.files:
        choice = read_json_object(folder / CHOICE_IN_RELEASE, ReleaseBroken)
        try:
            temperatures = dict(zip(MEMBERS, map(float, choice["member_temperatures"]), strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseBroken(f"{folder / CHOICE_IN_RELEASE}: member_temperatures must be two numbers") from error
    networks = {member: open_network(folder / release.members[member].onnx, threads) for member in MEMBERS}
    return ReleasedClassifier(release, preparation, temperatures, networks)


def open_network(path: Path, threads: int = 0) -> Any:
    """ONNX Runtime's session of a member's network, on `threads` threads of the CPU (0: one a core).

    Raises:
        ReleaseBroken: it is no network that can be run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except _NOT_ONNX as error:
        raise ReleaseBroken(f"{path} is not an ONNX network that can be run: {error}") from error
