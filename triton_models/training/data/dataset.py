"""Labelled images on disk: an image folder, or a CSV with the columns path, label, specimen (or patient), stain, split.

A folder is read as `[<split>/]<class>/<image>`; a split is any name, such as train, val or fold1. A class may be spelt
in any way the taxonomy knows; names that it does not know are classes of their own, as in other taxonomies.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.documents import read_text
from services.errors import PermanentError
from services.stains import stain_code
from services.taxonomy import CLASS_NAMES, class_named

IMAGE_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
_PATIENT_COLUMNS: Final = ("specimen", "patient")


class DatasetBroken(PermanentError):
    """A data set cannot be read as it stands."""

    reason = "dataset_broken"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of one cell."""

    path: Path
    label: str  # the class, in the taxonomy's spelling where it knows it
    spelling: str  # as the data set has it
    split: str | None
    specimen: str | None
    stain: str | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images of a data set, by path."""

    root: Path
    images: tuple[LabelledImage, ...]

    @property
    def found_classes(self) -> tuple[str, ...]:
        """The classes that occur: those of the taxonomy in its order, then others by name."""
        return in_order({image.label for image in self.images})

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, sorted; empty: the data set has none."""
        return tuple(sorted({image.split for image in self.images if image.split is not None}))

    def in_splits(self, names: Sequence[str]) -> tuple[LabelledImage, ...]:
        """The images of the splits `names`.

        Raises:
            DatasetBroken: no image is in one of them.
        """
        missing = set(names) - set(self.splits)
        if missing:
            raise DatasetBroken(
                f"{self.root} has no split {', '.join(sorted(missing))}; it has {self.splits or 'none'}"
            )
        return tuple(image for image in self.images if image.split in names)


def canonical(spelling: str) -> str:
    """The taxonomy's name of a class, or `spelling` itself if the taxonomy has no such class."""
    try:
        return class_named(spelling).label
    except KeyError:
        return spelling


def in_order(names: set[str]) -> tuple[str, ...]:
    """`names` in the order of indices: the taxonomy's, then the others by name."""
    known = [name for name in CLASS_NAMES if name in names]
    return (*known, *sorted(names - set(known)))


def read_dataset(path: Path) -> Dataset:
    """The data set in the folder or CSV file `path`. No image is opened.

    Raises:
        DatasetBroken: there is no image, or a row or folder cannot be placed; the message says which.
    """
    if path.is_dir():
        images = _read_folder(path)
    elif path.is_file():
        images = _read_csv(path)
    else:
        raise DatasetBroken(f"{path} is neither a folder of class folders nor a CSV file")
    if not images:
        raise DatasetBroken(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return Dataset(path, tuple(sorted(images, key=lambda image: image.path.as_posix())))


def _read_folder(root: Path) -> list[LabelledImage]:
    images = []
    for path in root.rglob("*"):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        folders = path.relative_to(root).parts[:-1]
        if len(folders) not in (1, 2):
            raise DatasetBroken(f"{path}: expected <class>/<image> or <split>/<class>/<image> under {root}")
        spelling = folders[-1]
        split = folders[0] if len(folders) == 2 else None
        images.append(LabelledImage(path, canonical(spelling), spelling, split, None, None))
    return images


def _read_csv(path: Path) -> list[LabelledImage]:
    images = []
    rows = csv.DictReader(io.StringIO(read_text(path, DatasetBroken), newline=""))
    try:
        missing = {"path", "label"} - set(rows.fieldnames or ())
        if missing:
            names = ", ".join(rows.fieldnames or ()) or "none"
            raise DatasetBroken(f"{path}: no column {', '.join(sorted(missing))}; its columns: {names[:200]}")
        for number, row in enumerate(rows, start=2):
            if not row["path"] or not row["label"]:
                raise DatasetBroken(f"{path}, line {number}: path or label is empty")
            specimen = next((row[column] for column in _PATIENT_COLUMNS if row.get(column)), None)
            images.append(
                LabelledImage(
                    path.parent / row["path"],
                    canonical(row["label"]),
                    row["label"],
                    row.get("split") or None,
                    specimen,
                    stain_code(row["stain"]) if row.get("stain") else None,
                )
            )
    except csv.Error as error:
        raise DatasetBroken(f"{path}, line {rows.line_num}: {error}") from error
    return images


def resolve_classes(dataset: Dataset, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The classes a network is trained on, in index order: `"taxonomy"`, `"found"`, or a list.

    Raises:
        DatasetBroken: an image's class is not among them.
    """
    if wanted == "found":
        return dataset.found_classes
    classes = CLASS_NAMES if wanted == "taxonomy" else tuple(canonical(name) for name in wanted)
    unknown = [name for name in dataset.found_classes if name not in classes]
    if unknown:
        raise DatasetBroken(
            f"{dataset.root}: {', '.join(unknown)} is not among {', '.join(classes)}; "
            'set data.classes = "found" to train on the classes of the data set'
        )
    return classes


def fingerprint(images: Sequence[LabelledImage]) -> str:
    """SHA-256 over content and class of every image, whatever it is called: which data this is, exactly."""
    lines = [f"{hashlib.sha256(image.path.read_bytes()).hexdigest()}\t{image.label}\n" for image in images]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
