"""The fields that are measured, laid out as a delivery: a sub-folder is a slide."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from services.errors import PermanentError
from services.imaging.types import UmPerPx
from services.intake.tree import IMAGE_SUFFIXES
from services.keys import MANIFEST_NAME
from services.local.service import CHECKOUT
from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec

DRAWN_UM_PER_PX: Final = 0.09
REAL_UM_PER_PX: Final = 0.045
_REAL: Final = "stained_fields"


class NoFields(PermanentError):
    """The folder holds no image."""

    reason = "no_fields"


@dataclass(frozen=True, slots=True)
class Fields:
    """Images of fields, all of one scale. `source` says in words where they come from."""

    paths: tuple[Path, ...]
    um_per_px: UmPerPx
    source: str

    def repeated(self, count: int) -> "Fields":
        """`count` of them, beginning again after the last."""
        return replace(self, paths=tuple(islice(cycle(self.paths), count)))


def real_fields_folder() -> Path | None:
    """The shared real fields, where this machine has them: `MORPHBATCH_DATA`, else beside the checkout."""
    data = Path(os.environ.get("MORPHBATCH_DATA", CHECKOUT.parent / "shared" / "data"))
    return data / _REAL if (data / _REAL).is_dir() else None


def fields_of(folder: Path, um_per_px: float, limit: int) -> Fields:
    """The first `limit` images of `folder`, by name.

    Raises:
        NoFields: there is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())[:limit]
    if not paths:
        raise NoFields(f"{folder} holds no image")
    return Fields(tuple(paths), UmPerPx(um_per_px), folder.name)


def drawn_fields(
    folder: Path, count: int, cells: int, on_field: Callable[[int, int], None] | None = None, seed: int = 7
) -> Fields:
    """`count` drawn fields of about `cells` cells, as a usual camera gives them; drawn once and kept in `folder`."""
    kept = folder / f"drawn-{count}-{cells}-{seed}"
    if not (kept / MANIFEST_NAME).is_file():
        shutil.rmtree(kept, ignore_errors=True)
        spec = BatchSpec(field=FieldSpec(um_per_px=DRAWN_UM_PER_PX, cells=cells))
        slides = max(1, count // 8)
        write_batch(kept, slides=slides, fields_per_slide=-(-count // slides), seed=seed, spec=spec, on_field=on_field)
    fields = fields_of(kept, DRAWN_UM_PER_PX, count)
    return Fields(fields.paths, fields.um_per_px, f"drawn, seed {seed}")


def lay_out(paths: Sequence[Path], folder: Path, slides: int) -> Path:
    """Copy `paths` to `slides` sub-folders of `folder`, which is replaced.

    What follows each other comes into one slide, since a slide counts a field that comes twice but once.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for number, path in enumerate(paths):
        slide = folder / f"slide-{number * slides // len(paths) + 1:02d}"
        slide.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, slide / f"field-{number + 1:04d}{path.suffix.lower()}")
    return folder
