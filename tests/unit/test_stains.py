"""Each way to write a stain leads to one code; what is unknown stays as it was given."""

import re

import pytest

from services.smears.stains import Stain
from services.stains import STAINING_METHODS, stain_code, stain_name, staining_method
from tests.places import CHECKOUT

WAYS_TO_WRITE = {
    "papanicolaou": ["Papanicolaou", "PAP", "pap stain", "Papanicolaou (modified)", "Papanicolaou-Färbung"],
    "diff-quik": ["Diff-Quik", "Diff Quick", "diffquik", "DIFF_QUICK", "Diff–Quik", "DQ", "Diff-Quik kit"],
    "shorr": ["Shorr", "SHORR stain", "Schorr", "Shorr boyası"],
    "giemsa": ["Giemsa", "giemsa staining"],
    "may-gruenwald-giemsa": ["May-Grünwald-Giemsa", "May Grunwald Giemsa", "may-gruenwald-giemsa", "MGG", "Pappenheim"],
    "bryan-leishman": ["Bryan-Leishman", "bryan leishman", "Bryan's Leishman"],
    "leishman": ["Leishman"],
    "hematoxylin-eosin": ["Hematoxylin-eosin", "H&E", "HE", "Hämatoxylin-Eosin", "Haematoxylin and Eosin"],
    "sperm-stain": ["Sperm Stain", "SpermStain", "sperm-stain kit"],
    "spermac": ["Spermac", "SPERMAC stain"],
    "unknown": ["unknown", "Unknown stain", "not specified"],
}  # fmt: skip


@pytest.mark.parametrize(("code", "spelling"), [(code, s) for code, ways in WAYS_TO_WRITE.items() for s in ways])
def test_a_stain_has_one_code_however_it_is_written(code: str, spelling: str) -> None:
    assert stain_code(spelling) == code


@pytest.mark.parametrize("given", ["BesLab", "RAL 555", "stain", "Pap2", "Giemsa + Shorr", "", "染色"])
def test_an_unknown_stain_is_kept_as_given(given: str) -> None:
    assert stain_code(given) == given
    assert stain_name(given) == given


def test_no_two_methods_share_a_spelling() -> None:
    for method in STAINING_METHODS:
        for spelling in (method.code, method.name, *method.aliases):
            assert staining_method(spelling) is method, spelling


def test_drawn_smears_name_their_stains_by_code() -> None:
    assert [stain_code(stain) for stain in Stain] == list(Stain)
    assert [stain_name(stain) for stain in Stain] == ["Diff-Quik", "Papanicolaou", "Shorr"]


def test_the_page_for_a_lims_lists_the_codes() -> None:
    listed = (CHECKOUT / "docs/manifest.md").read_text().split("### Stains")[1].split("##")[0]
    assert re.findall(r"`([a-z-]+)`", listed) == [m.code for m in STAINING_METHODS if m.code != "unknown"]
