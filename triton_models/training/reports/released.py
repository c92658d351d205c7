"""Both members of a release, run from their ONNX files on image files: evaluation sees what is served."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.releases.schema import MEMBERS, Release, verify_release
from triton_models.training.config import Fit, Preparation
from triton_models.training.data.preparation import read_crops

PREPARATION_NAME: Final = "training/preparation.json"
CHOICE_IN_RELEASE: Final = "fusion/choice.json"
_BATCH: Final = 32


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
        preparation = Preparation.model_validate_json((folder / PREPARATION_NAME).read_bytes())
    temperatures = dict(release.fusion.temperatures)
    if CHOICE_IN_RELEASE in release.files:
        choice = json.loads((folder / CHOICE_IN_RELEASE).read_bytes())
        temperatures = dict(zip(MEMBERS, choice["member_temperatures"], strict=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    networks = {
        member: onnxruntime.InferenceSession(
            folder / release.members[member].onnx, options, providers=["CPUExecutionProvider"]
        )
        for member in MEMBERS
    }
    return ReleasedClassifier(release, preparation, temperatures, networks)
