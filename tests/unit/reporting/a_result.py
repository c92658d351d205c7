"""Reports with known specimens, and what a LIMS is told of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.reporting.corrected import Correction
from services.reporting.distributions import distribution, normal_forms, region_shares
from services.reporting.messages.results import SpecimenResult, specimen_results, withdrawn_results
from services.reporting.report import Report, SlideReport
from services.reporting.specimens import specimen_reports
from services.taxonomy import CLASS_NAMES
from tests.places import CHECKOUT

STORED = Report.model_validate_json((CHECKOUT / "tests/integration/reporting/example/report.json").read_bytes())
NORMAL, PIN_HEAD = CLASS_NAMES.index("Normal"), CLASS_NAMES.index("PinHead")


def slide(slide_id: str, normal: int, cells: int, **values: Any) -> SlideReport:
    """A slide of specimen S-01 under a trained release."""
    counts = {NORMAL: normal, PIN_HEAD: cells - normal} if cells else {}
    given = {"slide_id": slide_id, "quality_flags": (), "cells": cells, "release_kind": "trained"}
    figures = {"normal_forms": normal_forms(counts), "distribution": distribution(counts)}
    return STORED.slides[0].model_copy(update={**given, **figures, "regions": region_shares(counts), **values})


def report_of(*slides: SlideReport, **values: Any) -> Report:
    """An issued report of these slides."""
    counts: Mapping[str, dict[int, int]] = {
        slide.slide_id: {NORMAL: slide.normal_forms.cells, PIN_HEAD: slide.cells - slide.normal_forms.cells}
        for slide in slides
        if slide.normal_forms
    }
    specimens = specimen_reports(slides, counts, Correction({}, {}))
    return STORED.model_copy(update={"slides": slides, "specimens": specimens, "warning": None, **values})


def result_of(*slides: SlideReport, lab_tests: bool = False, **values: Any) -> SpecimenResult:
    """What a LIMS is told of the only specimen of these slides."""
    [result] = specimen_results(report_of(*slides, **values), lab_tests=lab_tests)
    return result


def full_result(**values: Any) -> SpecimenResult:
    """Two replicates that agree, with all that a manifest may state."""
    given = {
        **{"order_number": "R-26/1", "accession_number": "A-1", "stain_lot": "L&9", "stain": "hematoxylin-eosin"},
        **{"sample_type": "semen", "collected_at": datetime.fromisoformat("2026-11-23T08:40:00+01:00"), **values},
    }
    return result_of(slide("a", 2, 400, **given), slide("b", 3, 400, replicate=2, **given))


def withdrawn_result() -> SpecimenResult:
    """A result that went out with revision 1, of a batch that was voided since."""
    void = report_of(revision=2, replaces=1, reason="batch voided by anna: sent twice")
    [result] = withdrawn_results(report_of(slide("a", 8, 200)), void, lab_tests=False)
    return result
