"""One field between its bytes and its crops: decode, judge its quality, find the cells, crop them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.analysis.copies import SeenFields
from services.analysis.queries import FieldWork, SlideWork
from services.errors import PermanentError
from services.fields import FieldLimits, decode
from services.imaging.crops import crop_cells, crop_of_cell_image
from services.imaging.decoding.channel_files import check_one_channel
from services.imaging.heads import find_heads
from services.imaging.likeness import Signature, signature_of
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, Box, FieldFault, FieldQuality, FoundHeads, Head, QualityFlag, SetAside
from services.imaging.working_size import check_working_size

T = TypeVar("T")
_MEASURES: Final = ("exposure_pct", "clipped_pct", "background_pct", "unevenness_pct", "stain_od")
NOTHING_FOUND: Final = FoundHeads((), ())


class CellOutsideField(PermanentError):
    """A box that the manifest gives reaches beyond the field."""

    reason = FieldFault.CELL_OUTSIDE


@dataclass(slots=True)
class StageClock:
    """Seconds spent by stage, of the clock and of the processor; no two threads of a slide share a stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        """Run `work` and add its time to `stage`."""
        start, cpu_start = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            self.add_cpu(stage, time.thread_time() - cpu_start)

    def add_cpu(self, stage: str, seconds: float) -> None:
        """Add processor time that another process spent on `stage`."""
        self.cpu[stage] = self.cpu.get(stage, 0.0) + seconds


@dataclass(frozen=True, slots=True)
class PreparedField:
    """A field with its cells cropped, or why it cannot be used.

    `fault` is a broken delivery, which quarantines the slide; `set_aside` is a finding about a readable image, which
    only leaves the field out; `detail` says more of it. Without both, `crops` is `[len(heads), S, S, 3]` UINT8.
    """

    work: FieldWork
    width: int | None = None
    height: int | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    found: FoundHeads = NOTHING_FOUND
    crops: NDArray[np.uint8] | None = None
    fault: PermanentError | None = None
    set_aside: SetAside | None = None
    detail: str | None = None
    signature: Signature | None = None


def copy_of_another(slide: SlideWork, work: FieldWork, other: str, same: str) -> PreparedField:
    """A field whose cells are those of the field `other`; `same` is what both have in common."""
    detail = f"{slide}: field {work.key} {same} field {other}: its cells are counted there, once"
    return PreparedField(work, set_aside=SetAside.DUPLICATE, detail=detail)


def prepare(
    data: bytes, slide: SlideWork, work: FieldWork, limits: FieldLimits, clock: StageClock, seen: SeenFields
) -> PreparedField:
    """Everything between the bytes of a field and its crops; `seen` are the fields of the slide before it.

    Raises:
        PermanentError: the image cannot be decoded, or the manifest's boxes do not fit it.
    """
    uploaded = slide.uploaded(work)
    decoded = clock.timed("decode", lambda: decode(data, uploaded, limits))
    clock.add_cpu("decode", decoded.cpu_s)
    pixels = decoded.pixels
    height, width = pixels.shape[:2]
    if work.named_as_channel:
        check_one_channel(str(uploaded), pixels)
    if work.is_crop:
        crop = crop_of_cell_image(pixels, um_per_px=slide.um_per_px, crop_um=slide.crop_um, size_px=slide.crop_px)
        whole = FoundHeads((Head(Box(0, 0, width, height)),), ())
        return PreparedField(work, width, height, {"notes": decoded.notes}, whole, crop[np.newaxis])
    check_working_size(str(uploaded), width, height, slide.um_per_px, limits.max_pixels)
    measured = clock.timed("quality", lambda: measure_quality(pixels, slide.um_per_px))
    quality = _as_document(measured, decoded.notes)
    if measured.unusable is not None:
        return PreparedField(work, width, height, quality, set_aside=measured.unusable)
    signature = None
    if QualityFlag.NO_STAINED_OBJECTS not in measured.flags:  # empty fields look alike by the dust on the camera
        signature = clock.timed("quality", lambda: signature_of(pixels))
    if signature is not None:
        if (other := seen.first_like(signature)) is not None:
            copy = copy_of_another(slide, work, other, "shows the same as")
            return replace(copy, width=width, height=height, quality=quality)
        seen.add(work.key, signature)
    found = _given_heads(slide, work, width, height) or clock.timed(
        "detect", lambda: find_heads(pixels, slide.um_per_px)
    )
    crops = clock.timed("crop", lambda: _crop(pixels, found, slide))
    empty = None if found.heads else SetAside.NO_CELLS
    return PreparedField(work, width, height, quality, found, crops, set_aside=empty, signature=signature)


def _given_heads(slide: SlideWork, work: FieldWork, width: int, height: int) -> FoundHeads | None:
    if work.given is None:
        return None
    for number, box in enumerate(work.given):
        if not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
            raise CellOutsideField(
                f"{slide}: field {work.key}: cells[{number}].box {list(box)} reaches beyond the image"
                f" ({width} × {height} px); correct the manifest and submit it as a new batch"
            )
    ordered = sorted(work.given, key=lambda box: (box.y0, box.x0))
    return FoundHeads(tuple(Head(box) for box in ordered), ())


def _crop(pixels: RGB, found: FoundHeads, slide: SlideWork) -> NDArray[np.uint8]:
    boxes = [head.box for head in found.heads]
    return crop_cells(pixels, boxes, um_per_px=slide.um_per_px, crop_um=slide.crop_um, size_px=slide.crop_px)


def _as_document(quality: FieldQuality, notes: tuple[str, ...]) -> dict[str, Any]:
    measures = {"focus_um": quality.focus, **{name: getattr(quality, name) for name in _MEASURES}}
    rounded = {name: None if value is None else round(value, 3) for name, value in measures.items()}
    return {**rounded, "flags": list(quality.flags), "notes": list(notes)}
