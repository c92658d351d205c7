"""`release.json`: what a release of the networks is, and the check that a folder holds it whole.

A release is immutable. Its folder holds this document and the ONNX files of both members, the source of truth. What a
backend compiles from them stands in `forms/` there (`triton_models.forms`) and is no part of it.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.atomic import write_text
from services.documents import read_model
from services.errors import ConfigurationError
from services.releases.fusion import fuse, log_shift
from services.taxonomy import CLASS_NAMES

MEMBERS: Final = ("efficientnetv2_s", "resnetv2_50")
TIMM_NAMES: Final = {"efficientnetv2_s": "tf_efficientnetv2_s", "resnetv2_50": "resnetv2_50"}
DOCUMENT: Final = "release.json"
_SUM_TOLERANCE: Final = 1e-6
FORMS: Final = "forms"  # folder of what was compiled from the release: see triton_models.forms

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]+(/[0-9A-Za-z_-][0-9A-Za-z._-]*)*$")]
_Temperature = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class ReleaseBroken(ConfigurationError):
    """A release folder is not what its document says; nothing may be served from it."""

    reason = "release_broken"


class ReleaseKind(StrEnum):
    """How far the networks of a release may be believed; reports say it in their first line."""

    UNTRAINED = "untrained"  # drawn weights: no statement about any cell
    DEMONSTRATION = "demonstration"  # trained on drawn or non-commercial images: not for use
    TRAINED = "trained"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileDigest(_Part):
    """Size in bytes and checksum of a file of the release."""

    sha256: Sha256
    size: int = Field(ge=0)


class Member(_Part):
    """One network. `onnx` is the path of its file in the release folder."""

    onnx: RelativePath


class Prior(_Part):
    """Shares of the classes, in their order, before anything is seen of a cell: in training, and where it is used.

    Networks that learnt from all classes alike name a rare class too often on a slide that has few such cells.
    """

    learnt: tuple[_Share, ...] = Field(description="As the loss saw them: equal where it weighs by 1 ÷ frequency.")
    meant: tuple[_Share, ...] = Field(description="In the slides that the release is meant for.")
    strength: float = Field(ge=0, le=1, description="How much of the way from one to the other the logits are moved.")

    @field_validator("learnt", "meant")
    @classmethod
    def _shares_of_one(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if abs(sum(shares) - 1) > _SUM_TOLERANCE:
            raise ValueError(f"shares must sum to 1, not {sum(shares):g}")
        return shares

    def shift(self) -> NDArray[np.float64]:
        """What is added to the fused logits, `[C]`."""
        return log_shift(self.learnt, self.meant, self.strength)


class Calibration(_Part):
    """How the fused logits become probabilities for estimating a mix, and how surely that is known.

    softmax(z ÷ exp(p₀) + p₁…p_C), z without the prior's shift, is the probability of each class if all are equally
    frequent. The parameters p were fitted on labelled cells; fitted on others like them they would spread as
    mean + factor · n does, n standard normal.
    """

    mean: tuple[float, ...] = Field(description="p: log temperature, then one bias per class.")
    factor: tuple[tuple[float, ...], ...] = Field(description="Rows of a lower triangle, each up to its diagonal.")
    cells: int = Field(gt=0, description="Labelled cells that it was fitted on.")

    @model_validator(mode="after")
    def _triangle(self) -> Self:
        if [len(row) for row in self.factor] != list(range(1, len(self.mean) + 1)):
            raise ValueError("factor must have a row per parameter, each one longer than the last")
        return self

    def draw(self, rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
        """The mean, and `draws` calibrations like it: `[1 + draws, 1 + C]`."""
        factor = np.zeros((len(self.mean), len(self.mean)))
        for number, row in enumerate(self.factor):
            factor[number, : len(row)] = row
        mean = np.asarray(self.mean)
        return np.vstack([mean, mean + rng.standard_normal((draws, len(mean))) @ factor.T])


class Fusion(_Part):
    """z = α·z₁/T₁ + (1 − α)·z₂/T₂ + s, with α the weight of EfficientNetV2-S; the probabilities are softmax(z).

    s = strength · (log meant − log learnt) of the prior; without one it is 0: the release is meant for the mix that it
    learnt from.
    """

    alpha: float | tuple[float, ...] = Field(description="One number, or one per class in the order of the classes.")
    temperatures: dict[str, _Temperature]
    # Left out where there is none, so that the documents on record stay what they are.
    prior: Prior | None = Field(default=None, exclude_if=lambda prior: prior is None)
    calibration: Calibration | None = Field(default=None, exclude_if=lambda calibration: calibration is None)

    @field_validator("alpha")
    @classmethod
    def _within_bounds(cls, alpha: float | tuple[float, ...]) -> float | tuple[float, ...]:
        wrong = [share for share in (alpha if isinstance(alpha, tuple) else (alpha,)) if not 0 <= share <= 1]
        if wrong:
            raise ValueError(f"must be in 0..1, not {', '.join(map(str, wrong))}")
        return alpha

    def probabilities(self, logits: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Fused probabilities `[N, C]` of each member's logits `[N, C]`."""
        first, second = MEMBERS
        return fuse(
            logits[first],
            logits[second],
            alpha=self.alpha,
            efficientnetv2_s_temperature=self.temperatures[first],
            resnetv2_50_temperature=self.temperatures[second],
            shift=None if self.prior is None else self.prior.shift(),
        )

    def check_classes(self, classes: int) -> None:
        """That α is one number, or one for each of `classes`, and that the prior has a share for each.

        Raises:
            ValueError: they are not.
        """
        given = {"alpha": self.alpha} if isinstance(self.alpha, tuple) else {}
        if self.prior is not None:
            given |= {"prior.learnt": self.prior.learnt, "prior.meant": self.prior.meant}
        for what, numbers in given.items():
            if len(numbers) != classes:
                raise ValueError(f"fusion.{what} has {len(numbers)} numbers, not one per class ({classes})")
        if self.calibration is not None and len(self.calibration.mean) != 1 + classes:
            raise ValueError(f"fusion.calibration.mean has {len(self.calibration.mean)} numbers, not {1 + classes}")


class Release(_Part):
    """The document `release.json`."""

    format: Literal["morphbatch.release/1"] = "morphbatch.release/1"
    id: str = Field(pattern=r"^[0-9a-z][0-9a-z._-]{2,62}$")
    kind: ReleaseKind
    git_commit: str | None = Field(pattern=r"^[0-9a-f]{40}$", description="Of the training code; null: untrained.")
    created: datetime
    data_fingerprint: str | None = Field(description="SHA-256 of the training data's list; null: no data was used.")
    classes: tuple[str, ...] = Field(description="In the index order of the logits.")
    crop_px: int = Field(ge=32, le=1024, description="Side of a crop, pixels.")
    crop_um: float = Field(gt=0, le=1000, description="Side of a crop, µm.")
    members: dict[str, Member]
    fusion: Fusion
    metrics: dict[str, Any] = Field(description="Per member and fused, with the data they were measured on.")
    files: dict[RelativePath, FileDigest] = Field(description="Every file of the folder but this document.")
    # Left out where there is none, so that the documents on record stay what they are.
    minimum_crop_inside_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        exclude_if=lambda share: share is None,
        description="A cell counts if so much of its crop lies in the field; null: each does.",
    )

    @model_validator(mode="after")
    def _agree_with_itself(self) -> Self:
        for what, names in (("members", self.members), ("fusion.temperatures", self.fusion.temperatures)):
            if set(names) != set(MEMBERS):
                raise ValueError(f"{what} must be {', '.join(MEMBERS)}, not {', '.join(names)}")
        self.fusion.check_classes(len(self.classes))
        missing = [member.onnx for member in self.members.values() if member.onnx not in self.files]
        if missing:
            raise ValueError(f"files does not list {', '.join(missing)}")
        return self

    def document(self) -> dict[str, Any]:
        """As JSON values, for `model_release.document`."""
        return self.model_dump(mode="json")

    def write(self, folder: Path) -> None:
        """Write `release.json` into `folder`."""
        write_text(folder / DOCUMENT, self.model_dump_json(indent=2) + "\n")


def digest(path: Path) -> FileDigest:
    """Size and checksum of the file `path`."""
    with path.open("rb") as file:
        return FileDigest(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def read_release(folder: Path) -> Release:
    """The release document in `folder`.

    Raises:
        ReleaseBroken: there is none, or it is malformed; the message names each fault.
    """
    if not (folder / DOCUMENT).exists():
        raise ReleaseBroken(f"{folder} is not a release: it holds no {DOCUMENT}")
    return read_model(folder / DOCUMENT, Release, ReleaseBroken)


def verify_release(folder: Path, classes: tuple[str, ...] | None = CLASS_NAMES) -> Release:
    """The release in `folder`, after every byte of it was checked. `classes` None: of any taxonomy.

    Raises:
        ReleaseBroken: a file is missing, too many or altered, or the classes are not in the order of the taxonomy.
    """
    release = read_release(folder)
    faults = []
    if classes is not None and release.classes != classes:
        faults.append(f"its classes are {', '.join(release.classes)}; this version has {', '.join(classes)}")
    found_files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    present = {path.as_posix() for path in found_files if path.parts[0] != FORMS} - {DOCUMENT}
    faults += [f"{name} does not belong to the release" for name in sorted(present - set(release.files))]
    for name, expected in release.files.items():
        if name not in present:
            faults.append(f"{name} is missing")
        elif (found := digest(folder / name)) != expected:
            faults.append(f"{name} is altered: sha256 {found.sha256}, {found.size} bytes, not {expected.sha256}")
    if faults:
        raise ReleaseBroken(f"release {release.id} in {folder}: " + "; ".join(faults))
    return release
