"""Makes the self-test of a release: drawn cells, and what ONNX Runtime makes of them."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.releases.schema import MEMBERS, Fusion
from services.releases.self_test import SELF_TEST, SelfTest
from services.smears.field import draw_cell_crop
from services.smears.stains import Stain
from services.taxonomy import CLASS_NAMES, class_named

_SEED: Final = 20261123
_TRIED: Final = 72
_KEPT: Final = 12


def drawn_crops(classes: tuple[str, ...], crop_um: float, crop_px: int, cells: int) -> NDArray[np.uint8]:
    """Crops `[cells, S, S, 3]` of drawn cells, classes and stains in turn; always the same ones."""
    known = [class_named(name).index for name in classes if name in CLASS_NAMES] or [0]
    stains = list(Stain)
    return np.stack(
        [
            draw_cell_crop(
                np.random.default_rng([_SEED, number]),
                known[number % len(known)],
                stain=stains[number // len(known) % len(stains)],
                crop_um=crop_um,
                size_px=crop_px,
            )
            for number in range(cells)
        ]
    )


def write_self_test(
    folder: Path, members: dict[str, Path], fusion: Fusion, classes: tuple[str, ...], crop_um: float, crop_px: int
) -> None:
    """Write the self-test into the release folder `folder`, for the ONNX files `members`.

    Of the crops those are kept whose class is surest, so that a form that rounds must name it too.
    """
    crops = drawn_crops(classes, crop_um, crop_px, _TRIED)
    logits = {member: _run(members[member], crops) for member in MEMBERS}
    probabilities = fusion.probabilities(logits)
    surest = np.sort(np.argsort(-probabilities.max(axis=1), kind="stable")[:_KEPT])
    SelfTest(crops[surest], {member: found[surest] for member, found in logits.items()}).write(folder / SELF_TEST)


def _run(onnx_file: Path, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["LOGITS"], {"CROPS": crops[i : i + 8]})[0] for i in range(0, len(crops), 8)])
