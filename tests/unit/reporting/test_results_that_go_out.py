"""Which results go out to a LIMS, and what is said of them whatever the language."""

import pytest

from services.reporting.messages.results import specimen_results
from tests.unit.reporting.a_result import full_result, report_of, result_of, slide


@pytest.mark.parametrize(
    ("kinds", "lab_tests", "goes_out"),
    [
        (("trained", "trained"), False, True),
        (("trained", "demonstration"), False, False),
        (("untrained", "untrained"), False, False),
        ((None, None), True, False),
        (("trained", None), False, True),
        (("demonstration", "untrained"), True, True),
    ],
)
def test_only_results_of_trained_releases_go_out_unless_the_lab_tests(
    kinds: tuple[str | None, str | None], lab_tests: bool, goes_out: bool
) -> None:
    slides = [slide(f"s-{n}", 8, 200, release_kind=kind, replicate=n + 1) for n, kind in enumerate(kinds)]
    found = list(specimen_results(report_of(*slides), lab_tests=lab_tests))
    assert bool(found) is goes_out
    assert all(result.is_test is lab_tests for result in found)
    assert all(("Test data" in result.notes[0]) is lab_tests for result in found)


def test_replicates_that_agree_are_pooled_and_those_that_do_not_are_not() -> None:
    agree = result_of(slide("a", 8, 200), slide("b", 10, 200, replicate=2))
    assert agree.pooled is not None
    assert agree.pooled.cells == 400
    differ = result_of(slide("a", 8, 200), slide("b", 60, 200, replicate=2))
    assert differ.pooled is None
    assert [smear.figures.cells for smear in differ.smears if smear.figures] == [200, 200]
    assert any("not joined: count both slides again" in note for note in differ.notes)


def test_replicates_that_cannot_be_compared_are_not_pooled() -> None:
    few = result_of(slide("a", 8, 199), slide("b", 8, 200, replicate=2))
    assert few.pooled is None
    assert any("200 cells in each are required" in note for note in few.notes)
    assert few.smears[0].notes == ("199 spermatozoa were counted; 200 are asked for.",)
    stains = result_of(slide("a", 8, 200), slide("b", 8, 200, replicate=2, stain="giemsa"))
    assert stains.pooled is None
    assert any("several stains" in note for note in stains.notes)


def test_one_smear_is_its_specimen_and_two_of_one_replicate_are_told_apart() -> None:
    one = result_of(slide("a", 8, 200))
    assert one.pooled is not None
    assert any("one replicate only" in note for note in one.notes)
    twice = result_of(slide("a", 8, 200), slide("b", 8, 200), slide("c", 8, 200, replicate=2))
    assert [smear.number for smear in twice.smears] == ["1", "1.2", "2"]


def test_a_smear_without_a_result_says_why() -> None:
    broken = slide("b", 0, 0, replicate=2, state="quarantined", reason="checksum_mismatch", detail="field f broken\nx")
    result = result_of(slide("a", 8, 200), broken)
    assert result.smears[1].figures is None
    assert result.smears[1].notes == ("No result of slide b: field f broken.",)
    assert result.pooled is not None


# 4 % lies in the interval of 8 of 200 cells; the bounds are those of the unrounded interval.
@pytest.mark.parametrize(("normal", "cells", "said"), [(1, 400, "L"), (8, 200, None), (40, 200, "N"), (0, 3, None)])
def test_normal_forms_are_low_only_if_their_whole_interval_is(normal: int, cells: int, said: str | None) -> None:
    result = result_of(slide("a", normal, cells))
    assert result.pooled is not None
    assert result.pooled.interpretation == said
    assert any("spans the 5th centile" in note for note in result.notes) is (said is None)


def test_a_revision_says_what_it_replaces_and_has_an_id_of_its_own() -> None:
    first = full_result()
    slides = [smear.slide for smear in first.smears]
    second = result_of(*slides, revision=2, replaces=1, reason="slide a sent to be analysed again: focus")
    assert first.report_id != second.report_id
    assert "Revision 2, instead of revision 1: slide a sent to be analysed again: focus." in second.notes
    assert not any("instead of" in note for note in first.notes)


def test_a_voided_batch_has_no_results() -> None:
    assert not list(specimen_results(report_of(), lab_tests=True))
