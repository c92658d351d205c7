"""Networks on the GPU of this machine, run by the code that the embedded server runs them by."""

from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.releases.schema import MEMBERS, Release
from triton_models.compile.tensorrt import MachineUnsuited
from triton_models.forms.form import Form, form_folder

_BATCH: Final = 64


def run_rtx(
    release_dir: Path, form: Form, crops: NDArray[np.uint8], folder: Path | None = None
) -> dict[str, NDArray[np.float32]]:
    """Logits `[N, C]` of both engines of the form `tensorrt-rtx-fp16` for `crops` `[N, S, S, 3]`.

    Raises:
        MachineUnsuited: they do not run here; the message says why.
    """
    folder = folder or form_folder(release_dir, form.form)
    return {member: _logits("rtx_network", folder / form.members[member], crops) for member in MEMBERS}


def run_torch(release_dir: Path, release: Release, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Logits `[N, C]` of both ONNX files in the form `torch-fp16` for `crops` `[N, S, S, 3]`.

    Raises:
        MachineUnsuited: they do not run here; the message says why.
    """
    return {member: _logits("torch_network", release_dir / release.members[member].onnx, crops) for member in MEMBERS}


def _logits(program: str, file: Path, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        network = import_module(f"triton_models.repository.gpu_network.{program}").Network(file, [_BATCH])
    except ModuleNotFoundError as error:
        raise MachineUnsuited(f"{error.name} is not installed") from error
    except RuntimeError as error:
        raise MachineUnsuited(str(error)) from error
    parts = []
    for start in range(0, len(crops), _BATCH):
        part = crops[start : start + _BATCH]
        network.crops[: len(part)] = part
        parts.append(network.run(_BATCH)[: len(part)].copy())
    return np.concatenate(parts)
