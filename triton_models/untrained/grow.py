"""Grow the untrained release from its skeletons: real networks with drawn weights, the same bytes everywhere.

It stands in until trained weights exist: everything runs at full size and speed, and nothing that it says of a cell
means anything. Needs `onnx`, of the `local` extra.
"""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.atomic import whole_folder
from services.releases.schema import MEMBERS, FileDigest, Fusion, Member, Release, ReleaseKind, digest
from services.taxonomy import CLASS_NAMES

SKELETONS: Final = Path(__file__).parent / "skeletons"
CROP_PX: Final = 192
CROP_UM: Final = 24.0
_MADE: Final = datetime(2026, 11, 23, tzinfo=UTC)  # of the skeletons: the release is the same whenever it is grown


@dataclass(frozen=True, slots=True)
class Draw:
    """How a weight tensor is drawn: uniform in ±bound, from the 64-bit stream of PCG64 under `seed`."""

    seed: int
    bound: float

    def as_record(self) -> dict[str, float]:
        """As it stands in `<member>.weights.json`."""
        return {"seed": self.seed, "bound": self.bound}


def draw_uniform(draw: Draw, shape: Sequence[int]) -> NDArray[np.float32]:
    """The tensor `shape` of `draw`.

    Made from the raw stream, which NumPy promises never to change, by steps that are exact in float32: a release grown
    on another machine, or by a later NumPy, has the same checksum.
    """
    size = int(np.prod(shape))
    raw = np.random.PCG64(draw.seed).random_raw((size + 1) // 2).astype("<u8")
    bits = raw.view("<u4")[:size] >> np.uint32(8)
    centred = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return (centred * np.float32(draw.bound)).reshape(tuple(shape))


def fill_skeleton(member: str, path: Path) -> None:
    """Write the ONNX file of `member` with every tensor drawn."""
    import onnx

    model = onnx.ModelProto.FromString(gzip.decompress((SKELETONS / f"{member}.onnx.gz").read_bytes()))
    records = json.loads((SKELETONS / f"{member}.weights.json").read_text(encoding="utf-8"))
    for tensor in model.graph.initializer:
        record = records.pop(tensor.name, None)
        if record is None:
            continue
        if "constant" in record:
            values = np.full(tuple(tensor.dims), record["constant"], np.float32)
        else:
            values = draw_uniform(Draw(record["seed"], record["bound"]), tensor.dims)
        tensor.raw_data = values.astype("<f4").tobytes()
    if records:
        raise ValueError(f"skeleton of {member} lacks the tensors {', '.join(records)}")
    path.write_bytes(model.SerializeToString(deterministic=True))


def build_untrained(out: Path) -> Release:
    """Build the untrained release in the folder `out`, which appears only when it is whole.

    Raises:
        AlreadyThere: `out` exists already.
    """
    with whole_folder(out) as partial:
        files: dict[str, FileDigest] = {}
        for member in MEMBERS:
            name = f"{member}/model.onnx"
            (partial / member).mkdir(parents=True)
            fill_skeleton(member, partial / name)
            files[name] = digest(partial / name)
        content = hashlib.sha256("".join(file.sha256 for file in files.values()).encode()).hexdigest()
        release = Release(
            id=f"untrained-{content[:12]}",
            kind=ReleaseKind.UNTRAINED,
            git_commit=None,
            created=_MADE,
            data_fingerprint=None,
            classes=CLASS_NAMES,
            crop_px=CROP_PX,
            crop_um=CROP_UM,
            members={member: Member(onnx=f"{member}/model.onnx") for member in MEMBERS},
            fusion=Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0)),
            metrics={},
            files=files,
        )
        release.write(partial)
    return release
