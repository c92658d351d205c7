"""A release's self-test: crops with the logits that its ONNX files give, so that what is served can be checked.

A server that answers promptly may still answer wrongly: a library of another version between it and its models is
enough. So known crops must give known logits before any slide is classified.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from services.atomic import whole_file
from services.errors import ConfigurationError
from services.releases.schema import MEMBERS, Release

SELF_TEST: Final = "self_test/answers.npz"
"""Its path in the release folder."""
MOST_BYTES: Final = 16 * 2**20

_FP32_TOLERANCE: Final = 0.02  # logits are some tens; CPUs and runtimes differ by 1e-4
_ROUNDED_TOLERANCE: Final = 1.0  # mean over all logits, of int8 and fp16
_FUSED_TOLERANCE: Final = 1e-3


class AnswersDiffer(ConfigurationError):
    """What is served does not give the answers of the release: nothing may be classified with it."""

    reason = "answers_differ"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the networks gave for N crops: both members' logits by name, and the fused probabilities, `[N, C]`."""

    logits: dict[str, NDArray[np.float32]]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Crops `[N, S, S, 3]` UINT8 and each member's logits `[N, C]`, by ONNX Runtime in fp32."""

    crops: NDArray[np.uint8]
    logits: dict[str, NDArray[np.float32]]

    def write(self, path: Path) -> None:
        """Write the `.npz` file `path`."""
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, crops=self.crops, **self.logits)  # type: ignore[arg-type]  # NumPy's own stub

    @classmethod
    def read(cls, data: bytes, release: Release) -> Self:
        """The self-test in `data`, the bytes of the file of `release`.

        Raises:
            AnswersDiffer: they are not the bytes that the release names.
        """
        if hashlib.sha256(data).hexdigest() != release.files[SELF_TEST].sha256:
            raise AnswersDiffer(f"{SELF_TEST} of release {release.id} is altered: publish the release again")
        with np.load(io.BytesIO(data)) as stored:
            return cls(stored["crops"], {member: stored[member] for member in MEMBERS})

    def check(self, release: Release, form: str, answers: Answers) -> float:
        """Compare `answers` for the crops with the release; the largest difference of a logit.

        In fp32 each logit must agree; a form that rounds (int8, fp16) must give each crop the same class.

        Raises:
            AnswersDiffer: they do not agree.
        """
        off = {member: np.abs(answers.logits[member] - self.logits[member]) for member in MEMBERS}
        worst = max(float(each.max()) for each in off.values())
        if form.endswith("fp32"):
            agrees = worst <= _FP32_TOLERANCE
        else:
            known = release.fusion.probabilities(self.logits).argmax(axis=1)
            agrees = bool((answers.probabilities.argmax(axis=1) == known).all())
            agrees &= all(float(each.mean()) <= _ROUNDED_TOLERANCE for each in off.values())
        if not agrees:
            raise AnswersDiffer(
                f"{form} of release {release.id} is served wrongly: the logits of {len(self.crops)} known crops are"
                f" off by up to {worst:.3g}. Check the versions in Triton's environment, or compile the form again"
            )
        check_fusion(release, answers)
        return worst


def check_fusion(release: Release, answers: Answers) -> None:
    """Check that the probabilities are those of the logits beside them, under the release's fusion.

    Raises:
        AnswersDiffer: they are not.
    """
    off = float(np.abs(release.fusion.probabilities(answers.logits) - answers.probabilities).max())
    if off > _FUSED_TOLERANCE:
        raise AnswersDiffer(
            f"the fusion of release {release.id} is served wrongly: probabilities are off by up to {off:.3g}."
            " Lay the repository out again, and check the versions in Triton's environment"
        )
