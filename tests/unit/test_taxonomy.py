"""Classes have a code, a name in each language, and a LOINC code only where it counts the same."""

import pytest

from services.taxonomy import CLASSES, display_name


def test_codes_and_names_are_unique_and_no_reader_meets_a_folder_name() -> None:
    for values in ([c.code for c in CLASSES], [c.english for c in CLASSES], [c.turkish for c in CLASSES]):
        assert len(set(values)) == 18
    for c in CLASSES:
        assert c.code == c.english.lower().replace(" ", "_")


@pytest.mark.parametrize("spelling", ["AmorfHead", "amorphous_head", "Amorphous head", "AmorphHead"])
def test_a_class_is_shown_in_the_readers_language(spelling: str) -> None:
    assert display_name(spelling, "en") == "Amorphous head"
    assert display_name(spelling, "tr") == "Amorf baş"


def test_a_class_of_a_releases_own_keeps_its_name() -> None:
    assert display_name("Detached", "tr") == "Detached"


def test_only_normal_has_a_loinc_code() -> None:
    assert {c.code: c.loinc for c in CLASSES if c.loinc} == {"normal": "10622-9"}
