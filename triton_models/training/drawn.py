"""Image folders of drawn cells, to start networks from that later see few real ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from services.smears.field import draw_cell_crop
from services.smears.stains import Stain
from services.taxonomy import class_named
from triton_models.training.batches import seed_of
from triton_models.training.dataset import DatasetBroken

_STAINS = tuple(Stain)


def write_drawn_cells(
    out: Path,
    classes: Sequence[str],
    counts: dict[str, int],
    crop_um: float,
    size_px: int,
    seed: int,
    step: Callable[[int, int], None] | None = None,
) -> None:
    """Write `<out>/<split>/<class>/<n>.png`, a drawn cell each, all stains in turn; the same seed, the same folder.

    Args:
        out: must not exist; it appears only when it is whole.
        classes: of the taxonomy.
        counts: cells of each class, by split.
        crop_um: side of a crop, µm.
        size_px: side of a crop, pixels.
        seed: every cell is drawn from its own stream.
        step: called with (cells drawn, cells in all).

    Raises:
        DatasetBroken: `out` exists.
    """
    if out.exists():
        raise DatasetBroken(f"{out} exists; choose another folder")
    partial = out.with_name(out.name + ".partial")
    total, done = len(classes) * sum(counts.values()), 0
    for part, (split, count) in enumerate(counts.items()):
        for name in classes:
            index = class_named(name).index
            folder = partial / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng(seed_of(seed, part, index, number))
                crop = draw_cell_crop(
                    rng, index, stain=_STAINS[number % len(_STAINS)], crop_um=crop_um, size_px=size_px
                )
                cv2.imwrite(str(folder / f"{number:05}.png"), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
                done += 1
                if step is not None:
                    step(done, total)
    partial.rename(out)
