"""One field between its bytes and its crops: decode, judge its quality, find the cells, crop them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.analysis.copies import SeenFields
from services.analysis.queries import FieldWork, SlideWork
from services.errors import PermanentError
from services.fields import FieldLimits, decode
from services.imaging.crops import crop_cells, crop_inside_shares, crop_of_cell_image
from services.imaging.decoding.channel_files import check_one_channel
from services.imaging.framing import specimen_of
from services.imaging.heads import find_heads
from services.imaging.likeness import Signature, signature_of
from services.imaging.planes import Planes
from services.imaging.quality import measure_quality
from services.imaging.scale import FieldScale, differs_from_file, heads_at_another_scale, lengths_um, misfits_um
from services.imaging.types import (
    RGB,
    Box,
    DecodedField,
    FieldFault,
    FieldQuality,
    FoundHeads,
    Head,
    Pixels,
    QualityFlag,
    SetAside,
    UmPerPx,
)
from services.imaging.working_size import check_working_size

T = TypeVar("T")
_MEASURES: Final = ("exposure_pct", "clipped_pct", "background_pct", "unevenness_pct", "stain_od")
_MAY_BE_THE_SCALE: Final = (SetAside.OUT_OF_FOCUS, SetAside.NO_CELLS)
NOTHING_FOUND: Final = FoundHeads((), ())


class CellOutsideField(PermanentError):
    """A box that the manifest gives reaches beyond the field."""

    reason = FieldFault.CELL_OUTSIDE


@dataclass(slots=True)
class StageClock:
    """Seconds spent by stage, of the clock and of the processor; no two threads of a slide share a stage."""

    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When each stage began first and ended last, of `time.perf_counter`."""

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        """Run `work` and add its time to `stage`."""
        start, cpu_start = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            end = time.perf_counter()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + end - start
            self.spans[stage] = (self.spans.get(stage, (start,))[0], end)
            self.add_cpu(stage, time.thread_time() - cpu_start)

    def add_cpu(self, stage: str, seconds: float) -> None:
        """Add processor time that another process spent on `stage`."""
        self.cpu[stage] = self.cpu.get(stage, 0.0) + seconds


@dataclass(frozen=True, slots=True)
class PreparedField:
    """A field with its cells cropped, or why it cannot be used.

    `fault` is a broken delivery, which quarantines the slide; `set_aside` is a finding about a readable image, which
    only leaves the field out; `detail` says more of it. Without both, `crops` is `[len(heads), S, S, 3]` UINT8, and
    `inside` how much of each lies in the field, 0 to 1; of an image that is one cell, None: it has no field.
    `signature` is of a field that shows enough to be told again.
    """

    work: FieldWork
    width: int | None = None
    height: int | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    found: FoundHeads = NOTHING_FOUND
    crops: NDArray[np.uint8] | None = None
    inside: Sequence[float | None] = ()
    fault: PermanentError | None = None
    set_aside: SetAside | None = None
    detail: str | None = None
    scale: FieldScale | None = None
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
        document = {"flags": _scale_flags(slide.um_per_px, decoded), "notes": list(decoded.notes)}
        return PreparedField(work, width, height, document, whole, crop[np.newaxis], (None,))
    check_working_size(str(uploaded), width, height, slide.um_per_px, limits.max_pixels)
    specimen = clock.timed("framing", lambda: specimen_of(pixels, slide.um_per_px))
    pixels, planes = specimen.pixels, Planes(specimen.pixels)
    measured = clock.timed("quality", lambda: measure_quality(pixels, slide.um_per_px, planes))
    quality = _as_document(measured, decoded.notes)
    quality["flags"] += _scale_flags(slide.um_per_px, decoded)
    if specimen.framed:
        quality["flags"].append(QualityFlag.FRAMED)
    if measured.unusable is not None:
        why = _or_the_scale(measured.unusable, pixels, slide, clock)
        return PreparedField(work, width, height, quality, set_aside=why, scale=FieldScale(width, height))
    signature = None
    if QualityFlag.NO_STAINED_OBJECTS not in measured.flags:  # empty fields look alike by the dust on the camera
        signature = clock.timed("quality", lambda: signature_of(pixels, planes))
    if signature is not None:
        if (other := seen.first_like(signature)) is not None:
            copy = copy_of_another(slide, work, other, "shows the same as")
            return replace(copy, width=width, height=height, quality=quality)
        seen.add(work.key, signature)
    found = _given_heads(slide, work, width, height) or clock.timed(
        "detect", lambda: find_heads(pixels, slide.um_per_px, specimen.covered, planes)
    )
    misfits = () if work.given else clock.timed("scale", lambda: misfits_um(pixels, slide.um_per_px, found))
    lengths = lengths_um(found, slide.um_per_px)
    scale = FieldScale(width, height, lengths, misfits, decoded.stated_um_per_px)
    crops = clock.timed("crop", lambda: _crop(planes, found, slide))
    inside = crop_inside_shares(
        [head.box for head in found.heads],
        (Pixels(width), Pixels(height)),
        um_per_px=slide.um_per_px,
        crop_um=slide.crop_um,
        covered=specimen.covered,
    )
    why_not = None if found.heads else _or_the_scale(SetAside.NO_CELLS, pixels, slide, clock)
    return PreparedField(
        work, width, height, quality, found, crops, inside, set_aside=why_not, scale=scale, signature=signature
    )


def _or_the_scale(why: SetAside, pixels: RGB, slide: SlideWork, clock: StageClock) -> SetAside:
    """Why a field is set aside: at a wrong scale, it has no head and looks out of focus, whatever it shows."""
    if why not in _MAY_BE_THE_SCALE:
        return why
    elsewhere = clock.timed("scale", lambda: heads_at_another_scale(pixels, slide.um_per_px))
    return SetAside.SCALE_DOUBTFUL if elsewhere else why


def _scale_flags(um_per_px: UmPerPx, decoded: DecodedField) -> list[QualityFlag]:
    return [QualityFlag.SCALE_NOT_OF_FILE] if differs_from_file(um_per_px, decoded.stated_um_per_px) else []


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


def _crop(planes: Planes, found: FoundHeads, slide: SlideWork) -> NDArray[np.uint8]:
    boxes = [head.box for head in found.heads]
    return crop_cells(
        planes.pixels,
        boxes,
        um_per_px=slide.um_per_px,
        crop_um=slide.crop_um,
        size_px=slide.crop_px,
        planes=planes,
    )


def _as_document(quality: FieldQuality, notes: tuple[str, ...]) -> dict[str, Any]:
    measures = {"focus_um": quality.focus, **{name: getattr(quality, name) for name in _MEASURES}}
    rounded = {name: None if value is None else round(value, 3) for name, value in measures.items()}
    return {**rounded, "flags": list(quality.flags), "notes": list(notes)}
