"""Counts of classes as the parts of a report: shares of classes and regions, normal forms."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypedDict

from services.imaging.types import NotCounted
from services.reporting.references import CENTILE_5_NORMAL_PCT, CENTILE_5_TEXT
from services.reporting.report import ClassShare, NormalForms, Regions, RegionShare
from services.reporting.statistics import Interval, wilson
from services.taxonomy import CLASSES, NORMAL, Region

Counts = Mapping[int, int]
"""Cells by class index; a class without cells may be missing."""


class _Figures(TypedDict):
    cells: int
    cells_total: int
    pct: float
    low_pct: float
    high_pct: float


def _rounded(interval: Interval) -> _Figures:
    return {
        "cells": interval.cells,
        "cells_total": interval.total,
        "pct": round(interval.pct, 2),
        "low_pct": round(interval.low_pct, 2),
        "high_pct": round(interval.high_pct, 2),
    }


def by_reason(slides: Iterable[Mapping[NotCounted, int]]) -> dict[NotCounted, int]:
    """The cells of slides that do not count, by reason in one order; reasons without a cell are left out."""
    total = sum((Counter(of_slide) for of_slide in slides), Counter[NotCounted]())
    return {reason: total[reason] for reason in NotCounted if total[reason]}


def distribution(counts: Counts) -> tuple[ClassShare, ...] | None:
    """All 18 classes in index order, each with its share and interval; `None` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return None
    return tuple(
        ClassShare(
            class_code=c.code,
            class_name=c.english,
            class_name_tr=c.turkish,
            region=c.region,
            loinc=c.loinc,
            **_rounded(wilson(counts.get(c.index, 0), total)),
        )
        for c in CLASSES
    )


def region_shares(counts: Counts) -> Regions | None:
    """Normal forms and the primary defects of head, neck and tail; `None` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return None

    def share(region: Region) -> RegionShare:
        cells = sum(counts.get(c.index, 0) for c in CLASSES if c.region is region)
        return RegionShare(**_rounded(wilson(cells, total)))

    return Regions(
        normal=share(Region.NORMAL), head=share(Region.HEAD), neck=share(Region.NECK), tail=share(Region.TAIL)
    )


def normal_forms(counts: Counts) -> NormalForms | None:
    """Normal forms with their interval, never without the 5th centile beside them; `None` of nothing."""
    total = sum(counts.values())
    if not total:
        return None
    interval = wilson(counts.get(NORMAL.index, 0), total)
    text = (
        f"{interval.pct:.1f} % normal forms (95 % interval of the count {interval.low_pct:.1f}–{interval.high_pct:.1f}"
        f" %, {interval.cells} of {interval.total} cells; WHO manual, 6th edition: {CENTILE_5_TEXT})"
    )
    return NormalForms(**_rounded(interval), centile_5_pct=CENTILE_5_NORMAL_PCT, text=text)
