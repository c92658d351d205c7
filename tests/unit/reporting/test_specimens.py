"""Why replicates are not compared, when they are not joined, and what a specimen's flags say."""

from collections.abc import Mapping
from typing import Any

import pytest

from services.reporting.corrected import Correction
from services.reporting.report import Report, SlideReport, SpecimenReport
from services.reporting.specimens import specimen_reports
from services.taxonomy import CLASS_NAMES
from tests.places import CHECKOUT

SLIDE = Report.model_validate_json((CHECKOUT / "tests/integration/reporting/example/report.json").read_bytes()).slides[
    0
]
NORMAL, PIN_HEAD = CLASS_NAMES.index("Normal"), CLASS_NAMES.index("PinHead")


def slide(slide_id: str, **values: Any) -> SlideReport:
    return SLIDE.model_copy(update={"slide_id": slide_id, "quality_flags": (), **values})


def specimens(*slides: SlideReport, counts: Mapping[str, tuple[int, int]]) -> tuple[SpecimenReport, ...]:
    return specimen_reports(
        slides,
        {name: {NORMAL: normal, PIN_HEAD: total - normal} for name, (normal, total) in counts.items()},
        Correction({}, {}),
    )


OTHERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "stain": ({"replicate": 2, "stain": "giemsa"}, "other_stain", "replicate 2, has another stain: Giemsa, not Shorr"),
    "release": ({"replicate": 2, "release_id": "r9"}, "other_release", "was classified by release r9, not r1"),
    "no result": ({"replicate": 2, "state": "quarantined"}, "replicate_without_result", "result: quarantined"),
    "same number": ({"replicate": 1}, "same_replicate_number", "its 2 slides are all given as replicate 1"),
    "other specimen": ({"replicate": 2, "specimen": "S-99"}, "one_replicate", "one replicate only in this batch"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_one_replicate_only_is_said_only_where_it_is_true(what: str) -> None:
    values, reason, detail = OTHERS[what]
    found = specimens(slide("a"), slide("b", **values), counts={"a": (10, 200), "b": (10, 200)})
    first = next(specimen for specimen in found if "a" in specimen.slides)
    assert not first.agreement.assessed
    assert first.agreement.reason == reason
    assert detail in first.agreement.detail


@pytest.mark.parametrize(("totals", "assessed"), [((199, 400), False), ((200, 199), False), ((200, 200), True)])
def test_fewer_than_200_in_one_replicate_are_not_assessable(totals: tuple[int, int], assessed: bool) -> None:
    counts = {"a": (8, totals[0]), "b": (8, totals[1])}
    [found] = specimens(slide("a"), slide("b", replicate=2), counts=counts)
    assert found.agreement.assessed is assessed
    assert ("fewer_than_200_cells:1" in found.quality_flags) is not assessed
    assert found.normal_forms is not None


def test_replicates_that_disagree_have_no_joined_result() -> None:
    slides = slide("a", quality_flags=("soft_focus:3",)), slide("b", replicate=2, quality_flags=("soft_focus:1",))
    [found] = specimens(*slides, counts={"a": (4, 200), "b": (30, 200)})
    assert found.agreement.assessed
    assert not found.agreement.replicates_agree
    assert (found.normal_forms, found.distribution, found.regions) == (None, None, None)
    assert found.cells == 400
    assert found.quality_flags == ("replicates_differ", "soft_focus:2")


def test_slides_of_one_replicate_are_counted_together() -> None:
    slides = slide("a"), slide("b"), slide("c", replicate=2)
    [found] = specimens(*slides, counts={"a": (4, 100), "b": (4, 100), "c": (9, 200)})
    assert found.agreement.assessed
    assert (found.agreement.replicate_1_pct, found.agreement.replicate_2_pct) == (4.0, 4.5)
