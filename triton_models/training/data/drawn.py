"""Image folders of drawn cells, found and cropped on drawn fields by the service's own stages.

What a network sees in service is what the detector centred on: half of a double head, a head beside a touching one, a
crop filled up at the border. So drawn cells are not cut where they were drawn, but where they were found.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.atomic import whole_folder
from services.imaging.crops import crop_cells
from services.imaging.framing import specimen_of
from services.imaging.heads import find_heads
from services.imaging.types import RGB, Box, Microns, Pixels, UmPerPx
from services.smears.batch import as_jpeg
from services.smears.field import FieldSpec, draw_cell_crop, draw_field
from services.smears.stains import Stain
from services.smears.truth import TrueCell
from services.taxonomy import CLASSES
from triton_models.training.data.augmentation import MARGIN
from triton_models.training.data.batches import seed_of

_COVERED: Final = 0.6  # of a found head's box inside a drawn cell's, for it to be that cell


@dataclass(frozen=True, slots=True)
class DrawnSpec:
    """What to draw. `fields` is a number of fields by split, about 16 cells each.

    Crops hold `crop_px` × MARGIN pixels of `crop_um` × MARGIN µm, so that turning them shows real surroundings; their
    middle `crop_px` are what the service would send. `blur_um` and `um_per_px` are drawn evenly between two values.
    """

    fields: dict[str, int]
    crop_um: float
    crop_px: int
    stains: tuple[Stain, ...] = tuple(Stain)
    blur_um: tuple[float, float] = (0.05, 0.16)
    um_per_px: tuple[float, float] = (0.075, 0.105)
    seed: int = 0


def write_drawn_cells(out: Path, spec: DrawnSpec, step: Callable[[int, int], None] | None = None) -> None:
    """Write `<out>/<split>/<class>/<field>-<cell>.png`; all classes, stains in turn. The same spec, the same folder.

    Args:
        out: must not exist; it appears only when it is whole.
        spec: what to draw; each field is drawn from a stream of its own.
        step: called with (fields drawn, fields in all).

    Raises:
        DatasetBroken: `out` exists.
    """
    jobs = [(part, number) for part, split in enumerate(spec.fields) for number in range(spec.fields[split])]
    _write(out, tuple(spec.fields), partial(_write_field, spec), jobs, step)


def write_lone_cells(
    out: Path, spec: DrawnSpec, a_class: dict[str, int], step: Callable[[int, int], None] | None = None
) -> None:
    """Write cells as `write_drawn_cells` does, but each far from any other: what networks from scratch learn first.

    Args:
        out: must not exist; it appears only when it is whole.
        spec: how to draw; its `fields` are not looked at.
        a_class: cells of each class by split.
        step: called with (cells drawn, cells in all).

    Raises:
        DatasetBroken: `out` exists.
    """
    count = len(CLASSES)
    jobs = [(part, number) for part, split in enumerate(a_class) for number in range(a_class[split] * count)]
    _write(out, tuple(a_class), partial(_write_lone_cell, tuple(a_class), spec), jobs, step)


def _write(
    out: Path,
    splits: tuple[str, ...],
    draw: Callable[[Path, tuple[int, int]], None],
    jobs: list[tuple[int, int]],
    step: Callable[[int, int], None] | None,
) -> None:
    with whole_folder(out) as unfinished:
        for split in splits:
            for known in CLASSES:
                (unfinished / split / known.label).mkdir(parents=True, exist_ok=True)
        # Forked, a process would inherit locks that torch's and OpenCV's threads may hold just then, and wait for ever.
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            written = pool.map(partial(draw, unfinished), jobs, chunksize=8)
            for done, _ in enumerate(written, start=1):
                if step is not None:
                    step(done, len(jobs))


def _write_field(spec: DrawnSpec, out: Path, job: tuple[int, int]) -> None:
    cv2.setNumThreads(1)
    part, number = job
    split = list(spec.fields)[part]
    for index, (class_index, crop) in enumerate(drawn_cells(spec, part, number)):
        _save(out / split / CLASSES[class_index].label / f"{number:05}-{index:02}.png", crop)


def _write_lone_cell(splits: tuple[str, ...], spec: DrawnSpec, out: Path, job: tuple[int, int]) -> None:
    cv2.setNumThreads(1)
    part, number = job
    turn, class_index = divmod(number, len(CLASSES))
    rng = np.random.default_rng(seed_of(spec.seed, len(splits) + part, number))
    crop = draw_cell_crop(
        rng,
        class_index,
        stain=spec.stains[turn % len(spec.stains)],
        crop_um=spec.crop_um * MARGIN,
        size_px=round(spec.crop_px * MARGIN),
        blur_um=float(rng.uniform(*spec.blur_um)),
        um_per_px=float(rng.uniform(*spec.um_per_px)),
        density=0.0,
        field_um=None,
    )
    _save(out / splits[part] / CLASSES[class_index].label / f"{number:05}.png", crop)


def _save(path: Path, crop: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))


def drawn_cells(spec: DrawnSpec, part: int, number: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Class index and crop of every cell found on field `number` of split `part`."""
    rng = np.random.default_rng(seed_of(spec.seed, part, number))
    um_per_px = float(rng.uniform(*spec.um_per_px))
    field = draw_field(
        rng,
        FieldSpec(
            um_per_px=um_per_px,
            stain=spec.stains[number % len(spec.stains)],
            classes=_dealt(rng),
            bacteria=int(rng.poisson(18)) if rng.random() < 0.25 else 0,
            blur_um=float(rng.uniform(*spec.blur_um)),
        ),
    )
    specimen = specimen_of(_stored(field.pixels), UmPerPx(um_per_px))
    boxes = [head.box for head in find_heads(specimen.pixels, UmPerPx(um_per_px), specimen.covered).heads]
    crops = crop_cells(
        specimen.pixels,
        boxes,
        um_per_px=UmPerPx(um_per_px),
        crop_um=Microns(spec.crop_um * MARGIN),
        size_px=Pixels(round(spec.crop_px * MARGIN)),
    )
    for box, crop in zip(boxes, crops, strict=True):
        cell = _cell_at(box, field.truth.cells)
        if cell is not None and cell.whole:
            yield cell.class_index, crop


def _dealt(rng: np.random.Generator) -> tuple[int, ...]:
    """The classes of a field's cells: each of the 18 once, in any order."""
    return tuple(int(index) for index in rng.permutation(len(CLASSES)))


def _stored(pixels: RGB) -> RGB:
    """As they come back from the JPEG file that a camera writes."""
    read = cv2.imdecode(np.frombuffer(as_jpeg(pixels, 92), np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(read, np.uint8)


def _cell_at(box: Box, cells: Sequence[TrueCell]) -> TrueCell | None:
    """The drawn cell whose heads cover most of a found box, if any covers enough."""
    best, most = None, _COVERED
    for cell in cells:
        x0, y0, x1, y1 = cell.head_box
        width, height = min(x1, box.x1) - max(x0, box.x0), min(y1, box.y1) - max(y0, box.y0)
        covered = max(width, 0.0) * max(height, 0.0) / ((box.x1 - box.x0) * (box.y1 - box.y0))
        if covered >= most:
            best, most = cell, covered
    return best
