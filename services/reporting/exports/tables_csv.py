"""slides.csv and specimens.csv: one row per slide or specimen of the report, for spreadsheets."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from services.imaging.types import NotCounted
from services.reporting.references import MEASURES
from services.reporting.report import Agreement, AgreementNotAssessed, Report, SlideReport, SpecimenReport
from services.taxonomy import CLASSES

_BATCH: Final = ("warning", "lab", "batch_id", "received_on")
_SHARE: Final = ("cells", "pct", "low_pct", "high_pct")
_CORRECTED: Final = ("pct", "low_pct", "high_pct")
_SUMMARY: Final = ("median", "p05", "p95")
_COLLECTED: Final = ("collected_at", "day")
_SLIDE: Final = (
    *("slide_id", "specimen", "replicate", "stain", "um_per_px", "state", "reason"),
    *("release_id", "release_kind", "cells", "cells_not_counted", "on_border", "objects_rejected"),
)
_NOT_COUNTED: Final = tuple(f"not_counted_{reason}" for reason in NotCounted)
_REPLICATES: Final = ("replicates_agree", "replicates_reason")
# Normal is one of the classes.
_COUNTED: Final = (
    *(f"{known.code}_{what}" for known in CLASSES for what in _SHARE),
    "normal_centile_5_pct",
    *(f"normal_corrected_{what}" for what in _CORRECTED),
    *(f"{region}_region_pct" for region in ("head", "neck", "tail")),
)
SLIDE_COLUMNS: Final[tuple[str, ...]] = (
    *_BATCH,
    *_SLIDE,
    *_COLLECTED,
    *("fields", "fields_used", "fields_set_aside"),
    *_NOT_COUNTED,
    *_COUNTED,
    *_REPLICATES,
    *("mean_confidence_pct", "low_confidence_pct"),
    *(f"{m.column}_{what}" for m in MEASURES for what in _SUMMARY),
    *("quality_flags", "seconds"),
)
SPECIMEN_COLUMNS: Final[tuple[str, ...]] = (
    *_BATCH,
    *("specimen", "stain", "release_id", "release_kind", "slide_ids", "slides", "cells", "cells_not_counted"),
    *_COLLECTED,
    *_NOT_COUNTED,
    *_COUNTED,
    *_REPLICATES,
    *("replicate_1_pct", "replicate_2_pct", "p_value", "quality_flags"),
)

Value = str | int | float | None


def write_slides_csv(report: Report, path: Path) -> None:
    """Write one row per slide; a slide without a result has empty cells where the result would be."""
    _write(path, SLIDE_COLUMNS, (_slide(report, slide) for slide in report.slides))


def write_specimens_csv(report: Report, path: Path) -> None:
    """Write one row per specimen, stain and release; one whose replicates disagree has empty cells for its shares."""
    _write(path, SPECIMEN_COLUMNS, (_specimen(report, specimen) for specimen in report.specimens))


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Value]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\r\n")
        table.writeheader()
        table.writerows(rows)


def _batch(report: Report) -> dict[str, Value]:
    return {
        "warning": report.warning,
        "lab": report.lab,
        "batch_id": report.batch_id,
        "received_on": report.received_on.isoformat(),
        "normal_centile_5_pct": report.reference.normal_centile_5_pct,
    }


def _slide(report: Report, slide: SlideReport) -> dict[str, Value]:
    row = _batch(report) | {name: getattr(slide, name) for name in _SLIDE} | _collected(slide) | _counted(slide)
    row |= {
        "fields": slide.fields.given,
        "fields_used": slide.fields.used,
        "fields_set_aside": len(slide.fields.set_aside),
        "quality_flags": ";".join(slide.quality_flags),
        "seconds": slide.seconds_total,
    }
    for specimen in report.specimens:
        if slide.slide_id in specimen.slides:
            row |= _replicates(specimen.agreement)
    if confidence := slide.confidence:
        row |= {"mean_confidence_pct": confidence.mean_pct, "low_confidence_pct": confidence.low_share_pct}
    for measure in slide.morphometry or ():
        row |= {f"{measure.measure}_{what}": getattr(measure, what) for what in _SUMMARY}
    return row


def _specimen(report: Report, specimen: SpecimenReport) -> dict[str, Value]:
    kinds = {release.id: release.kind for release in report.releases}
    row = _batch(report) | _collected(specimen) | _counted(specimen) | _replicates(specimen.agreement)
    row |= {name: getattr(specimen, name) for name in ("specimen", "stain", "release_id", "cells", "cells_not_counted")}
    row |= {
        "release_kind": kinds[specimen.release_id],
        "slide_ids": ";".join(specimen.slides),
        "slides": len(specimen.slides),
        "quality_flags": ";".join(specimen.quality_flags),
    }
    if specimen.agreement.assessed:
        row |= {name: getattr(specimen.agreement, name) for name in ("replicate_1_pct", "replicate_2_pct", "p_value")}
    return row


def _collected(of: SlideReport | SpecimenReport) -> dict[str, Value]:
    collected_at = None if of.collected_at is None else of.collected_at.isoformat()
    return {"collected_at": collected_at, "day": of.day.isoformat()}


def _counted(of: SlideReport | SpecimenReport) -> dict[str, Value]:
    shares = {f"{s.class_code}_{what}": getattr(s, what) for s in of.distribution or () for what in _SHARE}
    shares |= {f"not_counted_{reason}": of.not_counted_by_reason.get(reason, 0) for reason in NotCounted}
    if corrected := of.corrected:
        shares |= {f"normal_corrected_{what}": getattr(corrected.normal_forms, what) for what in _CORRECTED}
    regions = of.regions
    return shares | (
        {f"{region}_region_pct": getattr(regions, region).pct for region in ("head", "neck", "tail")} if regions else {}
    )


def _replicates(compared: Agreement | AgreementNotAssessed) -> dict[str, Value]:
    if compared.assessed:
        return {"replicates_agree": "true" if compared.replicates_agree else "false"}
    return {"replicates_reason": compared.reason}
