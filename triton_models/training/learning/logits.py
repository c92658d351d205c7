"""Logits of one network on labelled images: what fusion and evaluation work on. NumPy only."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from services.atomic import whole_file
from services.errors import ConfigurationError


class LogitsDiffer(ConfigurationError):
    """Two networks' logits are not of the same images, classes or labels."""

    reason = "logits_differ"


@dataclass(frozen=True, slots=True)
class LabelledLogits:
    """Logits `[N, classes]` with the truth. `names` are the images' paths, relative to their data set."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]

    def write(self, path: Path) -> None:
        """Write the `.npz` file `path` whole, or not at all."""
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file, classes=np.array(self.classes), names=np.array(self.names), labels=self.labels, logits=self.logits
            )


def read_logits(path: Path) -> LabelledLogits:
    """The logits in the file `path`.

    Raises:
        LogitsDiffer: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise LogitsDiffer(f"{path} does not exist: the training of this member has not finished")
    try:
        with np.load(path, allow_pickle=False) as file:
            return LabelledLogits(
                tuple(str(name) for name in file["classes"]),
                tuple(str(name) for name in file["names"]),
                file["labels"].astype(np.int64),
                file["logits"].astype(np.float32),
            )
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, BadZipFile) as error:
        raise LogitsDiffer(f"{path} is damaged ({error}): train the member again") from error


def check_alike(first: LabelledLogits, second: LabelledLogits) -> None:
    """Refuse logits that cannot be fused.

    Raises:
        LogitsDiffer: says in what they differ.
    """
    if first.classes != second.classes:
        raise LogitsDiffer(f"the members have different classes: {first.classes} and {second.classes}")
    if first.names != second.names or not np.array_equal(first.labels, second.labels):
        raise LogitsDiffer("the members were validated on different images; train both on the same data and split")
