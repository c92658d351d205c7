"""Shares of the 18 classes and of the regions, as they stand in a report. Percentages are rounded to 0.01."""

from collections.abc import Mapping
from typing import Any, Final

from services.reporting.references import LOWER_LIMIT_NORMAL_PCT
from services.reporting.statistics import Interval, replicate_agreement, wilson
from services.taxonomy import CLASSES, NORMAL, REGION_LOINC, Region

NOT_ASSESSABLE: Final = "not assessable"
INDICES: Final[dict[str, str]] = {
    "MAI": NOT_ASSESSABLE,
    "TZI": NOT_ASSESSABLE,
    "SDI": NOT_ASSESSABLE,
    "reason": "these indices count all defects of a cell; the networks name one class a cell, so multiple anomalies,"
    " teratozoospermia and sperm deformity indices would be 1 by construction or too low",
}

Counts = Mapping[int, int]
"""Cells by class index; a class without cells may be missing."""


def share(interval: Interval | None) -> dict[str, Any] | None:
    """An interval as a report holds it."""
    if interval is None:
        return None
    return {
        "cells": interval.cells,
        "total": interval.total,
        "pct": round(interval.pct, 2),
        "low_pct": round(interval.low_pct, 2),
        "high_pct": round(interval.high_pct, 2),
    }


def distribution(counts: Counts) -> list[dict[str, Any]]:
    """All 18 classes in index order, each with its share and 95 % interval; empty where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return []
    return [
        {
            "class": c.name,
            "region": c.region.value,
            "loinc": c.loinc,
            **(share(wilson(counts.get(c.index, 0), total)) or {}),
        }
        for c in CLASSES
    ]


def region_shares(counts: Counts) -> dict[str, Any]:
    """Normal forms and the defects of head, neck and tail, each with its share and interval."""
    total = sum(counts.values())
    shares = {}
    for region in (Region.NONE, Region.HEAD, Region.NECK, Region.TAIL):
        cells = sum(counts.get(c.index, 0) for c in CLASSES if c.region is region)
        name = "normal" if region is Region.NONE else region.value
        shares[name] = {"loinc": REGION_LOINC[region], **(share(wilson(cells, total)) or {})}
    return shares


def normal_forms(counts: Counts) -> dict[str, Any] | None:
    """Normal forms with their interval, never without the reference limit beside them; `None` of nothing."""
    interval = wilson(counts.get(NORMAL.index, 0), sum(counts.values()))
    if interval is None:
        return None
    text = (
        f"{interval.pct:.1f} % normal forms (95 % interval {interval.low_pct:.1f}–{interval.high_pct:.1f} %,"
        f" {interval.cells} of {interval.total} cells; WHO lower reference limit {LOWER_LIMIT_NORMAL_PCT:g} %)"
    )
    return {**(share(interval) or {}), "reference_limit_pct": LOWER_LIMIT_NORMAL_PCT, "text": text}


def agreement(first: Counts, second: Counts) -> dict[str, Any]:
    """Whether two replicates agree on the normal forms, and what to do if they do not."""
    found = replicate_agreement(
        (first.get(NORMAL.index, 0), sum(first.values())), (second.get(NORMAL.index, 0), sum(second.values()))
    )
    if found is None:
        return {"assessed": False, "reason": "a replicate has no classified cells"}
    return {
        "assessed": True,
        "acceptable": found.is_acceptable,
        "replicate_1_pct": round(found.first_pct, 2),
        "replicate_2_pct": round(found.second_pct, 2),
        "difference_points": round(found.difference_points, 2),
        "acceptable_points": round(found.acceptable_points, 2),
        "method": found.method,
        "advice": None if found.is_acceptable else "the replicates differ by more than chance explains: count again",
    }
