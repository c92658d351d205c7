"""Writes a batch of drawn slides as a LIMS would deliver it: images, their truth, and the manifest last."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from services.atomic import whole_file
from services.errors import PermanentError
from services.keys import MANIFEST_NAME
from services.smears.field import FieldSpec, draw_field
from services.smears.optics import RGB, Fault
from services.smears.stains import PALETTES, Stain
from services.taxonomy import CLASSES

TRUTH_NAME: Final = "truth.jsonl"
_SCHEMA: Final = "morphbatch.manifest/1"
_REPLICATES: Final = 2
_FAULTS: Final = tuple(fault for fault in Fault if fault is not Fault.NONE)


class FolderNotEmpty(PermanentError):
    """The folder to write holds files that must not be lost."""

    reason = "folder_not_empty"


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """What a batch looks like; `field` says what its fields have in common.

    `stains` go round from specimen to specimen. `faults` and `bacteria` are the shares of fields with a fault and of
    slides with bacteria. `balanced` deals all 18 classes evenly; otherwise `field.class_weights` rule.
    """

    lab: str = "demo-lab"
    batch_id: str = "smears"
    stains: tuple[Stain, ...] = tuple(Stain)
    balanced: bool = False
    faults: float = 0.0
    bacteria: float = 0.25
    jpeg_quality: int = 92
    field: FieldSpec = field(default_factory=FieldSpec)


def write_batch(
    out: Path,
    *,
    slides: int,
    fields_per_slide: int,
    seed: int,
    spec: BatchSpec = BatchSpec(),
    force: bool = False,
    on_field: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a batch into `out` and return the path of its manifest. The same seed and spec give the same bytes.

    `out/slide-01/field-001.jpg` …, `out/truth.jsonl` and, last of all, `out/manifest.json`. Slides 1 and 2 are
    replicates of one specimen, 3 and 4 of the next. `on_field(done, total)` is called after every field.

    Raises:
        FolderNotEmpty: `out` holds files, unless they are an earlier batch of drawn smears and `force` is set.
    """
    _make_room(out, force=force)
    total = slides * fields_per_slide
    deck = _deck(np.random.default_rng([seed, 1]))
    manifest_slides, truth_lines = [], []
    for slide in range(slides):
        rng = np.random.default_rng([seed, 2, slide])
        stain = spec.stains[slide // _REPLICATES % len(spec.stains)]
        palette = PALETTES[stain].of_slide(rng)
        bacteria = rng.poisson(18) if rng.random() < spec.bacteria else 0
        folder = f"slide-{slide + 1:02d}"
        (out / folder).mkdir(exist_ok=True)
        fields = []
        for number in range(fields_per_slide):
            field_rng = np.random.default_rng([seed, 3, slide, number])
            cells = _vary(field_rng, spec.field.cells)
            field_spec = replace(
                spec.field,
                stain=stain,
                palette=palette,
                cells=cells,
                classes=tuple(next(deck) for _ in range(cells)) if spec.balanced else spec.field.classes,
                bacteria=spec.field.bacteria or int(bacteria),
                fault=_FAULTS[field_rng.integers(len(_FAULTS))]
                if field_rng.random() < spec.faults
                else spec.field.fault,
            )
            drawn = draw_field(field_rng, field_spec)
            key = f"{folder}/field-{number + 1:03d}.jpg"
            data = as_jpeg(drawn.pixels, spec.jpeg_quality)
            _write(out / key, data)
            fields.append({"key": key, "sha256": hashlib.sha256(data).hexdigest()})
            truth_lines.append(json.dumps(drawn.truth.as_json(key), separators=(",", ":")))
            if on_field is not None:
                on_field(len(truth_lines), total)
        manifest_slides.append(
            {
                "slide_id": folder,
                "specimen": _pseudonym(seed, slide // _REPLICATES),
                "replicate": slide % _REPLICATES + 1,
                "stain": str(stain),
                "um_per_px": spec.field.um_per_px,
                "fields": fields,
            }
        )
    _write(out / TRUTH_NAME, "".join(f"{line}\n" for line in truth_lines).encode())
    manifest = {"schema": _SCHEMA, "lab": spec.lab, "batch_id": spec.batch_id, "slides": manifest_slides}
    _write(out / MANIFEST_NAME, (json.dumps(manifest, indent=2) + "\n").encode())
    return out / MANIFEST_NAME


def as_jpeg(pixels: RGB, quality: int) -> bytes:
    """`pixels` `[H, W, 3]` as a JPEG file, colour at half resolution as cameras store it."""
    encoded, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:  # only where OpenCV was built without JPEG
        raise RuntimeError("OpenCV did not encode a JPEG")
    return data.tobytes()


def _make_room(out: Path, *, force: bool) -> None:
    """An empty `out`; of an earlier batch only what `write_batch` itself wrote is removed."""
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    earlier = (out / TRUTH_NAME).is_file() and (out / MANIFEST_NAME).is_file()
    if not (earlier and force):
        hint = "--force replaces it" if earlier else "name another folder"
        raise FolderNotEmpty(f"{out} is not empty; {hint}")
    # The manifest goes first: a folder without one is not a batch, should this be interrupted.
    for old in (out / MANIFEST_NAME, *sorted(out.glob("slide-*/field-*.jpg"))):
        old.unlink()


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as draft:
        draft.write_bytes(data)


def _vary(rng: np.random.Generator, cells: int) -> int:
    """About `cells`, as fields of a slide differ."""
    return round(cells * rng.uniform(0.75, 1.25))


def _deck(rng: np.random.Generator) -> Iterator[int]:
    """All classes in a random order, again and again."""
    while True:
        yield from (int(i) for i in rng.permutation(len(CLASSES)))


def _pseudonym(seed: int, specimen: int) -> str:
    return f"S-{hashlib.sha256(f'{seed}/{specimen}'.encode()).hexdigest()[:4].upper()}"
