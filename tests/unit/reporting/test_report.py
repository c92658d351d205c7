"""The report as a document: read back whole, warned about first, named files added."""

import json

import pytest
from pydantic import ValidationError

from services.reporting.report import Report, Share
from tests.places import CHECKOUT

STORED = (CHECKOUT / "tests/integration/reporting/example/report.json").read_bytes()


@pytest.fixture
def report() -> Report:
    """A stored report of seven slides."""
    return Report.model_validate_json(STORED)


def test_a_stored_report_is_read_back_and_written_the_same(report: Report) -> None:
    assert report.as_json() == STORED


def test_the_warning_is_the_first_key_and_there_is_none_without_a_reason(report: Report) -> None:
    assert next(iter(json.loads(report.as_json()))) == "warning"
    trained = report.model_copy(update={"warning": None})
    assert next(iter(json.loads(trained.as_json()))) == "schema"


def test_nobody_changes_a_report(report: Report) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        report.slides[0].cells = 1  # type: ignore[misc]


def test_files_and_notes_come_to_their_slides_and_nothing_else_changes(report: Report) -> None:
    written = report.with_files(["slides.csv"], {"slide-1": ("slides/slide-1/cells.geojson",)}, ["a note"])
    assert written.files == ("slides.csv",)
    assert written.notes == ("a note",)
    assert [len(slide.files) for slide in written.slides] == [0, 1, 0, 0, 0, 0, 0]
    assert written.with_files(report.files, {s.slide_id: s.files for s in report.slides}, report.notes) == report


def test_a_slide_knows_the_release_under_which_its_result_stands(report: Report) -> None:
    assert [report.release_of(slide).id for slide in report.slides[:5]] == ["r1", "r1", "r1", "r1", "r2"]
    with pytest.raises(LookupError, match="slide slide-6 of berlin/night-1"):
        report.release_of(report.slides[6])
    assert report.slides[4].seconds_total == 3.0
    assert report.slides[6].seconds_total is None


def test_a_share_is_rounded_once() -> None:
    share = Share(cells=7, cells_total=197, pct=3.55, low_pct=1.73, high_pct=7.15)
    assert (share.one_decimal, f"{share.pct:.1f}") == ("3.6", "3.5")
