"""Score the detector and its outlines on annotated fields.

A found head and a true one match at IoU ≥ 0.5 of their boxes, best pairs first, each used once. A true head that the
border cuts counts as found when it is reported as cut by the border; what is reported so is neither a hit nor a false
find for the precision, as it is never classified and people annotate such heads or leave them, as they like.

The time of a field is processor time of the one thread that works: what else runs on the machine does not count.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.evaluation.annotations import AnnotatedCell, AnnotatedField
from services.imaging.types import RGB, Box, FoundHeads, Head, RejectReason, UmPerPx

MATCH_IOU: Final = 0.5

Detect = Callable[[Path], tuple[RGB, FoundHeads]]
"""Reads a field and finds its heads: everything that is timed."""


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Whole cells of one kind, or objects that are no sperm, and what came of them; people's annotations are `usual`.

    A cell is `found` if one head matches it, and `in_two` if several heads lie in its box; an object is `found` for
    each head in its box. `not_counted` are those of the heads found that were told to be no sperm.
    """

    there: int = 0
    found: int = 0
    in_two: int = 0
    not_counted: int = 0


@dataclass(frozen=True, slots=True)
class DetectorFigures:
    """Figures over all fields. Errors are relative for length and width (median), absolute for shares (mean).

    A figure is None when nothing could be measured for it.
    """

    fields: int
    cells: int
    recall: float | None
    precision: float | None
    split_errors: int
    mask_iou: float | None
    length_error: float | None
    width_error: float | None
    acrosome_error: float | None
    ms_per_field: float
    kinds: Mapping[str, KindFigures]


@dataclass(frozen=True, slots=True)
class ScoredField:
    """One field: pairs (true, found), what was missed, what was found falsely, and its seconds of processor time."""

    annotated: AnnotatedField
    pixels: RGB
    pairs: tuple[tuple[AnnotatedCell, Head], ...]
    found_cut: tuple[AnnotatedCell, ...]
    missed: tuple[AnnotatedCell, ...]
    false: tuple[Head, ...]
    found: FoundHeads
    seconds: float


def score_field(annotated: AnnotatedField, detect: Detect) -> ScoredField:
    """Run `detect` on one field and match what it finds."""
    start = time.thread_time()
    pixels, found = detect(annotated.path)
    seconds = time.thread_time() - start
    matches = match_boxes([c.head_box for c in annotated.cells], [h.box for h in found.heads])
    rest = [i for i in range(len(annotated.cells)) if i not in matches]
    cut = [r.box for r in found.rejected if r.reason == RejectReason.BORDER]
    at_border = {rest[k] for k in match_boxes([annotated.cells[i].head_box for i in rest], cut)}
    return ScoredField(
        annotated,
        pixels,
        pairs=tuple((annotated.cells[i], found.heads[j]) for i, j in matches.items()),
        found_cut=tuple(annotated.cells[i] for i in at_border),
        missed=tuple(annotated.cells[i] for i in rest if i not in at_border),
        false=tuple(h for j, h in enumerate(found.heads) if j not in matches.values()),
        found=found,
        seconds=seconds,
    )


def match_boxes(true: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> dict[int, int]:
    """Pairs of indices (true → found) with IoU ≥ 0.5, the best first, each used once."""
    candidates = sorted(
        ((_iou(t, f), i, j) for i, t in enumerate(true) for j, f in enumerate(found)), key=lambda c: (-c[0], c[1], c[2])
    )
    pairs: dict[int, int] = {}
    for overlap, i, j in candidates:
        if overlap >= MATCH_IOU and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def figures(scored: Iterable[ScoredField], um_per_px: UmPerPx) -> DetectorFigures:
    """Collect the figures of all fields; `um_per_px` turns true lengths from pixels into µm."""
    fields = cells = hits = finds = recalled = splits = 0
    seconds: list[float] = []
    overlaps: list[float] = []
    lengths: list[float] = []
    widths: list[float] = []
    shares: list[float] = []
    kinds: dict[str, KindFigures] = {}
    for field in scored:
        _add_kinds(field, kinds)
        fields += 1
        cells += len(field.annotated.cells)
        hits += len(field.pairs)
        finds += len(field.found.heads)
        recalled += len(field.pairs) + len(field.found_cut)
        splits += split_errors(field)
        seconds.append(field.seconds)
        shape = (field.pixels.shape[0], field.pixels.shape[1])
        for cell, head in field.pairs:
            true_mask = cell.mask(shape)
            true_length, true_width = (side * um_per_px for side in cell.head_sides())
            measures = head.measures
            if head.outline is not None:
                found_mask = outline_mask(head.outline, shape)
                overlaps.append(np.count_nonzero(true_mask & found_mask) / np.count_nonzero(true_mask | found_mask))
            if measures.length_um is not None:
                lengths.append(abs(measures.length_um / true_length - 1))
            if measures.width_um is not None:
                widths.append(abs(measures.width_um / true_width - 1))
            if measures.acrosome_share is not None:
                share = np.count_nonzero(cell.mask(shape, ("acrosome",))) / np.count_nonzero(true_mask)
                shares.append(abs(measures.acrosome_share - share))
    return DetectorFigures(
        fields=fields,
        cells=cells,
        recall=round(recalled / cells, 4) if cells else None,
        precision=round(hits / finds, 4) if finds else None,
        split_errors=splits,
        mask_iou=_rounded(np.mean(overlaps)) if overlaps else None,
        length_error=_rounded(np.median(lengths)) if lengths else None,
        width_error=_rounded(np.median(widths)) if widths else None,
        acrosome_error=_rounded(np.mean(shares)) if shares else None,
        ms_per_field=round(1000 * float(np.median(seconds)), 1) if seconds else 0.0,
        kinds=kinds,
    )


def _add_kinds(field: ScoredField, kinds: dict[str, KindFigures]) -> None:
    """Add what came of each kind of cells and objects of a field."""
    head_of = {cell.id: head for cell, head in field.pairs}
    boxes = [head.box for head in field.found.heads]
    results: list[tuple[str, list[Head], bool]] = []
    for cell in field.annotated.cells:
        if cell.whole:
            found = [head_of[cell.id]] if cell.id in head_of else []
            results.append((cell.kind, found, not found and _centres_inside(cell.head_box, boxes) > 1))
    for item in field.annotated.objects:
        if item.whole:
            results.append((item.kind, [head for head in field.false if _centres_inside(item.box, [head.box])], False))
    for kind, found, in_two in results:
        before = kinds.get(kind, KindFigures())
        not_counted = sum(head.not_counted is not None for head in found)
        kinds[kind] = KindFigures(
            before.there + 1, before.found + len(found), before.in_two + in_two, before.not_counted + not_counted
        )


def split_errors(field: ScoredField) -> int:
    """How often heads were joined (one find holds the centres of several true heads) or cut apart (the reverse)."""
    true = [c.head_box for c in field.annotated.cells]
    found = [h.box for h in field.found.heads]
    return sum(_centres_inside(box, true) > 1 for box in found) + sum(_centres_inside(box, found) > 1 for box in true)


def outline_mask(outline: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels on and inside `outline` `[n, 2]`, in a field of `shape` (height, width)."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [outline], 1)
    return canvas.astype(np.bool_)


def _centres_inside(box: Sequence[float], others: Iterable[Sequence[float]]) -> int:
    return sum(box[0] < (o[0] + o[2]) / 2 < box[2] and box[1] < (o[1] + o[3]) / 2 < box[3] for o in others)


def _iou(a: Sequence[float] | Box, b: Sequence[float] | Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _rounded(value: np.floating) -> float:
    return round(float(value), 4)
