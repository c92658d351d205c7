"""Counts of classes as the parts of a report: shares of classes and regions, normal forms."""

from collections.abc import Mapping
from typing import TypedDict

from services.reporting.references import LOWER_LIMIT_NORMAL_PCT
from services.reporting.report import ClassShare, NormalForms, Regions, RegionShare
from services.reporting.statistics import Interval, wilson
from services.taxonomy import CLASSES, NORMAL, REGION_LOINC, Region

Counts = Mapping[int, int]
"""Cells by class index; a class without cells may be missing."""


class _Figures(TypedDict):
    cells: int
    total: int
    pct: float
    low_pct: float
    high_pct: float


def _rounded(interval: Interval) -> _Figures:
    return {
        "cells": interval.cells,
        "total": interval.total,
        "pct": round(interval.pct, 2),
        "low_pct": round(interval.low_pct, 2),
        "high_pct": round(interval.high_pct, 2),
    }


def distribution(counts: Counts) -> tuple[ClassShare, ...] | None:
    """All 18 classes in index order, each with its share and interval; `None` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return None
    return tuple(
        ClassShare(class_name=c.name, region=c.region, loinc=c.loinc, **_rounded(wilson(counts.get(c.index, 0), total)))
        for c in CLASSES
    )


def region_shares(counts: Counts) -> Regions | None:
    """Normal forms and the defects of head, neck and tail; `None` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return None

    def share(region: Region) -> RegionShare:
        cells = sum(counts.get(c.index, 0) for c in CLASSES if c.region is region)
        return RegionShare(loinc=REGION_LOINC[region], **_rounded(wilson(cells, total)))

    return Regions(normal=share(Region.NONE), head=share(Region.HEAD), neck=share(Region.NECK), tail=share(Region.TAIL))


def normal_forms(counts: Counts) -> NormalForms | None:
    """Normal forms with their interval, never without the reference limit beside them; `None` of nothing."""
    total = sum(counts.values())
    if not total:
        return None
    interval = wilson(counts.get(NORMAL.index, 0), total)
    text = (
        f"{interval.pct:.1f} % normal forms (95 % interval {interval.low_pct:.1f}–{interval.high_pct:.1f} %,"
        f" {interval.cells} of {interval.total} cells; WHO lower reference limit {LOWER_LIMIT_NORMAL_PCT:g} %)"
    )
    return NormalForms(**_rounded(interval), reference_limit_pct=LOWER_LIMIT_NORMAL_PCT, text=text)
