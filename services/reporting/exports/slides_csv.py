"""slides.csv: one row per slide of the report, for spreadsheets."""

import csv
from pathlib import Path
from typing import Final

from services.reporting.references import MEASURES
from services.reporting.report import Report, SlideReport
from services.taxonomy import CLASS_NAMES

_FACTS: Final = (
    *("slide_id", "specimen", "replicate", "stain", "um_per_px", "state", "reason"),
    *("release_id", "release_kind", "cells", "on_border", "objects_rejected"),
)
_SHARES: Final = ("cells", "pct", "low_pct", "high_pct")
_SUMMARIES: Final = ("median", "p05", "p95")
SLIDE_COLUMNS: Final[tuple[str, ...]] = (
    "warning",
    "lab",
    "batch",
    *_FACTS,
    *("fields", "fields_used", "fields_set_aside"),
    *(f"normal_{what}" for what in _SHARES),
    "normal_reference_limit_pct",
    *("head_region_pct", "neck_region_pct", "tail_region_pct"),
    *("mean_confidence_pct", "low_confidence_pct"),
    *(f"{name}_{what}" for name in CLASS_NAMES for what in _SHARES),
    *(f"{m.column}_{summary}" for m in MEASURES for summary in _SUMMARIES),
    *("quality_flags", "seconds_total"),
)

Value = str | int | float | None


def write_slides_csv(report: Report, path: Path) -> None:
    """Write one row per slide; a slide without a result has empty cells where the result would be."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, SLIDE_COLUMNS, lineterminator="\r\n")
        rows.writeheader()
        rows.writerows(_row(report, slide) for slide in report.slides)


def _row(report: Report, slide: SlideReport) -> dict[str, Value]:
    row: dict[str, Value] = {
        "warning": report.warning,
        "lab": report.lab,
        "batch": report.batch_id,
        **{name: getattr(slide, name) for name in _FACTS},
        "fields": slide.fields.given,
        "fields_used": slide.fields.used,
        "fields_set_aside": len(slide.fields.set_aside),
        "normal_reference_limit_pct": report.reference.normal_forms_lower_limit_pct,
        "quality_flags": ";".join(slide.quality_flags),
        "seconds_total": slide.seconds_total,
    }
    if normal := slide.normal_forms:
        row |= {f"normal_{what}": getattr(normal, what) for what in _SHARES}
    if regions := slide.regions:
        row |= {
            "head_region_pct": regions.head.pct,
            "neck_region_pct": regions.neck.pct,
            "tail_region_pct": regions.tail.pct,
        }
    if confidence := slide.confidence:
        row |= {"mean_confidence_pct": confidence.mean_pct, "low_confidence_pct": confidence.low_share_pct}
    for share in slide.distribution or ():
        row |= {f"{share.class_name}_{what}": getattr(share, what) for what in _SHARES}
    for measure in slide.morphometry or ():
        row |= {f"{measure.measure}_{summary}": getattr(measure, summary) for summary in _SUMMARIES}
    return row
