"""`morphbatch data check`: what would make training on a data set dishonest."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.taxonomy import CLASS_NAMES
from triton_models.training.data.dataset import DatasetBroken, LabelledImage, fingerprint, read_dataset
from triton_models.training.data.duplicates import NEAR, find_duplicates, thumbnail
from triton_models.training.data.preparation import ImageUnreadable, read_image

SAMPLES: Final = 8
SAMPLE_PX: Final = 96
FEW: Final = 20  # images of a class: fewer validate nothing
NONE: Final = "(none)"


@dataclass(frozen=True, slots=True)
class Twin:
    """Two images that are one."""

    first: str
    second: str
    likeness: float
    exact: bool
    splits: tuple[str, str]
    labels: tuple[str, str]

    @property
    def leaks(self) -> bool:
        """Whether one is trained on and the other validated on."""
        return self.splits[0] != self.splits[1]

    @property
    def contradicts(self) -> bool:
        """Whether they are labelled differently."""
        return self.labels[0] != self.labels[1]


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What was found. Paths are relative to the data set."""

    root: Path
    images: int
    fingerprint: str
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]  # class → split → images
    spellings: dict[str, tuple[str, ...]]  # class → as the data set has it
    unreadable: dict[str, str]  # path → why
    twins: tuple[Twin, ...]
    leaked_specimens: dict[str, tuple[str, ...]]  # specimen → its splits
    specimens: int
    stains: dict[str, int]
    sides_px: tuple[int, int, int]  # shortest side: least, median, most
    samples: dict[str, NDArray[np.uint8]]  # class → [n, 96, 96, 3]

    @property
    def imbalance(self) -> float:
        """Images of the most frequent class for each of the rarest."""
        totals = [sum(splits.values()) for splits in self.counts.values()]
        return max(totals) / min(totals)

    @property
    def faults(self) -> list[str]:
        """What must be fixed before results on this data can be trusted."""
        faults = []
        leaks = [twin for twin in self.twins if twin.leaks]
        contradictions = [twin for twin in self.twins if twin.contradicts]
        if self.unreadable:
            faults.append(f"{len(self.unreadable)} files are unreadable")
        if leaks:
            faults.append(f"{len(leaks)} pairs of the same image lie in different splits")
        if contradictions:
            faults.append(f"{len(contradictions)} pairs of the same image have different labels")
        if self.leaked_specimens:
            faults.append(f"{len(self.leaked_specimens)} specimens lie in several splits")
        return faults

    @property
    def remarks(self) -> list[str]:
        """What should be known, and may be intended."""
        remarks = []
        within = [twin for twin in self.twins if not twin.leaks]
        if within:
            remarks.append(f"{len(within)} pairs of the same image lie within a split")
        if self.imbalance >= 3:
            remarks.append(f"the most frequent class has {self.imbalance:.1f} images for each of the rarest")
        few = [name for name, splits in self.counts.items() if sum(splits.values()) < FEW]
        if few:
            remarks.append(f"fewer than {FEW} images: {', '.join(few)}")
        if self.splits:
            gaps = [f"{name} ({split})" for name, n in self.counts.items() for split in self.splits if not n.get(split)]
            if gaps:
                remarks.append(f"classes absent from a split: {', '.join(gaps)}")
        else:
            remarks.append("no splits are named: training makes its own, stratified and by specimen")
        if not self.specimens:
            remarks.append("no specimens are named: a patient in several splits cannot be detected")
        other = [name for name in self.classes if name not in CLASS_NAMES]
        if other:
            remarks.append(f"not in the taxonomy of 18 classes: {', '.join(other)}")
        return remarks

    def document(self) -> dict[str, Any]:
        """As JSON values, for `--json`."""
        return {
            "data": str(self.root),
            "images": self.images,
            "fingerprint": self.fingerprint,
            "splits": list(self.splits),
            "classes": list(self.classes),
            "counts": self.counts,
            "spellings": {name: list(spellings) for name, spellings in self.spellings.items()},
            "imbalance": round(self.imbalance, 2),
            "unreadable": self.unreadable,
            "duplicates": [
                {
                    "first": twin.first,
                    "second": twin.second,
                    "likeness": round(twin.likeness, 4),
                    "exact": twin.exact,
                    "across_splits": twin.leaks,
                    "labels": list(twin.labels),
                }
                for twin in self.twins
            ],
            "leaked_specimens": {name: list(splits) for name, splits in self.leaked_specimens.items()},
            "specimens": self.specimens,
            "stains": self.stains,
            "shortest_side_px": dict(zip(("least", "median", "most"), self.sides_px, strict=True)),
            "faults": self.faults,
            "remarks": self.remarks,
        }


def check_data(path: Path, near: float = NEAR, step: Callable[[int, int], None] | None = None) -> DataCheck:
    """Read every image of the data set `path` and look for what would spoil a training run.

    Args:
        path: an image folder or CSV, as of `read_dataset`.
        near: least likeness at which two images count as one.
        step: called with (images read, images in all).

    Raises:
        DatasetBroken: the data set cannot be listed, or none of its images can be read.
    """
    dataset = read_dataset(path)
    folder = path if path.is_dir() else path.parent
    readable: list[LabelledImage] = []
    thumbnails = []
    unreadable: dict[str, str] = {}
    sides = []
    for number, image in enumerate(dataset.images, start=1):
        try:
            pixels = read_image(image.path)
        except ImageUnreadable as error:
            unreadable[_relative(image.path, folder)] = str(error)
        else:
            readable.append(image)
            thumbnails.append(thumbnail(pixels))
            sides.append(min(pixels.shape[:2]))
        if step is not None:
            step(number, len(dataset.images))
    if not readable:
        name, reason = next(iter(unreadable.items()))
        raise DatasetBroken(f"{path}: none of its {len(unreadable)} images can be read, such as {name}: {reason}")
    twins = []
    for pair in find_duplicates([image.path for image in readable], np.stack(thumbnails), near):
        first, second = readable[pair.first], readable[pair.second]
        twins.append(
            Twin(
                _relative(first.path, folder),
                _relative(second.path, folder),
                pair.likeness,
                pair.exact,
                (first.split or NONE, second.split or NONE),
                (first.label, second.label),
            )
        )
    classes = dataset.found_classes
    counts = {name: Counter(i.split or NONE for i in dataset.images if i.label == name) for name in classes}
    return DataCheck(
        root=path,
        images=len(dataset.images),
        fingerprint=fingerprint(readable),
        splits=dataset.splits,
        classes=classes,
        counts={name: dict(sorted(splits.items())) for name, splits in counts.items()},
        spellings={name: tuple(sorted({i.spelling for i in dataset.images if i.label == name})) for name in classes},
        unreadable=unreadable,
        twins=tuple(twins),
        leaked_specimens=_leaked_specimens(dataset.images),
        specimens=len({image.specimen for image in dataset.images if image.specimen}),
        stains=dict(Counter(image.stain for image in dataset.images if image.stain)),
        sides_px=(min(sides), int(np.median(sides)), max(sides)),
        samples={name: _samples([i for i in readable if i.label == name]) for name in classes},
    )


def _relative(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _leaked_specimens(images: Sequence[LabelledImage]) -> dict[str, tuple[str, ...]]:
    splits: dict[str, set[str]] = {}
    for image in images:
        if image.specimen and image.split:
            splits.setdefault(image.specimen, set()).add(image.split)
    return {specimen: tuple(sorted(names)) for specimen, names in sorted(splits.items()) if len(names) > 1}


def _samples(images: Sequence[LabelledImage]) -> NDArray[np.uint8]:
    """A few images of a class, spread over its list, each in a square."""
    chosen = [images[round(place)] for place in np.linspace(0, len(images) - 1, min(SAMPLES, len(images)))]
    squares = np.full((len(chosen), SAMPLE_PX, SAMPLE_PX, 3), 255, np.uint8)
    for square, image in zip(squares, chosen, strict=True):
        pixels = read_image(image.path)
        shrink = SAMPLE_PX / max(pixels.shape[:2])
        width, height = (max(1, round(side * shrink)) for side in (pixels.shape[1], pixels.shape[0]))
        top, left = (SAMPLE_PX - height) // 2, (SAMPLE_PX - width) // 2
        square[top : top + height, left : left + width] = cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_AREA
        )
    return squares
