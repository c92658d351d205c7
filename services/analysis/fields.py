"""One field: fetch, verify, decode, judge its quality, find the cells, crop them."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.analysis.work import FieldWork, SlideWork
from services.errors import PermanentError
from services.imaging.crops import crop_cells, crop_of_cell_image
from services.imaging.decoding.decode import decode_field
from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, Box, FieldQuality, FoundHeads, Head, SetAside
from services.storage import ObjectMissing, ObjectStore

T = TypeVar("T")
_MEASURES: Final = ("exposure_pct", "clipped_pct", "background_pct", "unevenness_pct", "stain_od")
NOTHING_FOUND: Final = FoundHeads((), ())


class FieldMissing(PermanentError):
    """The manifest names a field that was never uploaded."""

    reason = "field_missing"


class ChecksumMismatch(PermanentError):
    """The uploaded bytes are not those whose checksum the manifest gives."""

    reason = "checksum_mismatch"


class CellOutsideField(PermanentError):
    """A box that the manifest gives reaches beyond the field."""

    reason = "cell_outside_field"


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
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.thread_time() - cpu_start


@dataclass(frozen=True, slots=True)
class PreparedField:
    """A field with its cells cropped, or why it cannot be used.

    `fault` is a broken delivery, which quarantines the slide; `set_aside` is a finding about a readable image, which
    only leaves the field out. Without both, `crops` is `[len(heads), S, S, 3]` UINT8.
    """

    work: FieldWork
    width: int | None = None
    height: int | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    found: FoundHeads = NOTHING_FOUND
    crops: NDArray[np.uint8] | None = None
    fault: PermanentError | None = None
    set_aside: SetAside | None = None


def fetch(store: ObjectStore, slide: SlideWork, work: FieldWork, max_bytes: int) -> bytes:
    """The field's bytes, checked against the manifest.

    Raises:
        FieldMissing, ChecksumMismatch: what was uploaded is not what the manifest promises.
        PermanentError: it is larger than `max_bytes`.
        OutageError: the store cannot be reached.
    """
    try:
        data = store.get(slide.object_key(work), max_bytes=max_bytes)
    except ObjectMissing as error:
        raise FieldMissing(
            f"{slide}: field {work.key} is named in the manifest but was not uploaded; upload it and requeue the slide"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != work.sha256:
        raise ChecksumMismatch(
            f"{slide}: field {work.key} has sha256 {digest[:12]}…, the manifest says {work.sha256[:12]}…;"
            " upload it again and requeue the slide"
        )
    return data


def prepare(
    data: bytes, slide: SlideWork, work: FieldWork, clock: StageClock, *, max_bytes: int, max_pixels: int
) -> PreparedField:
    """Everything between the bytes of a field and its crops.

    Raises:
        PermanentError: the image cannot be decoded, or the manifest's boxes do not fit it.
    """
    decoded = clock.timed("decode", lambda: decode_field(data, work.key, max_bytes=max_bytes, max_pixels=max_pixels))
    pixels = decoded.pixels
    height, width = pixels.shape[:2]
    if work.is_crop:
        crop = crop_of_cell_image(pixels, um_per_px=slide.um_per_px, crop_um=slide.crop_um, size_px=slide.crop_px)
        whole = FoundHeads((Head(Box(0, 0, width, height)),), ())
        return PreparedField(work, width, height, {"notes": decoded.notes}, whole, crop[np.newaxis])
    measured = clock.timed("quality", lambda: measure_quality(pixels, slide.um_per_px))
    quality = _as_document(measured, decoded.notes)
    if measured.unusable is not None:
        return PreparedField(work, width, height, quality, set_aside=measured.unusable)
    found = _given_heads(slide, work, width, height) or clock.timed(
        "detect", lambda: find_heads(pixels, slide.um_per_px)
    )
    crops = clock.timed("crop", lambda: _crop(pixels, found, slide))
    return PreparedField(
        work, width, height, quality, found, crops, set_aside=None if found.heads else SetAside.NO_CELLS
    )


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
