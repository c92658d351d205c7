"""The HL7 v2.5.1 message of a specimen, read back by another library than the one that wrote it."""

from typing import Any

import hl7
import pytest

from services.reporting.messages.hl7 import message, message_id
from services.reporting.messages.results import SpecimenResult
from tests.unit.reporting.a_result import full_result, result_of, slide, withdrawn_result

BROKEN = {"state": "quarantined", "reason": "checksum_mismatch", "detail": "field f broken"}


def read(result: SpecimenResult) -> hl7.Message:
    return hl7.parse(message(result).decode("utf-8"))


def observations(parsed: hl7.Message) -> dict[tuple[str, str], Any]:
    """By the code that is ours and OBX-4."""
    found = {}
    for obx in parsed.segments("OBX"):
        code = [str(part) for part in obx[3][0]] if isinstance(obx[3][0], list) else [str(obx[3])]
        found[code[3] if len(code) > 3 else code[0], str(obx[4])] = obx
    return found


def test_it_is_an_oru_r01_of_2_5_1() -> None:
    parsed = read(full_result())
    msh = parsed.segment("MSH")
    assert [str(msh[n]) for n in (9, 11, 12, 18)] == ["ORU^R01^ORU_R01", "P", "2.5.1", "UNICODE UTF-8"]
    assert str(msh[10]) == message_id(full_result())
    assert len(str(msh[10])) == 20
    kinds = [str(segment[0]) for segment in parsed if str(segment[0]) not in ("OBX", "NTE")]
    assert kinds == ["MSH", "SFT", "PID", "ORC", "OBR", "SPM"]
    assert message(full_result()).endswith(b"\r")
    assert b"\n" not in message(full_result())


def test_who_it_is_of_and_what_it_answers() -> None:
    parsed = read(full_result())
    assert [str(parsed.segment("PID")[n]) for n in (3, 5)] == ["S-01^^^berlin^PI", "^^^^^^S"]
    assert str(parsed.segment("ORC")[1]) == "RE"
    obr = parsed.segment("OBR")
    assert [str(obr[n]) for n in (2, 3)] == ["R-26/1^berlin", "berlin/night-1/S-01^MORPHBATCH"]
    assert str(obr[4]).startswith("9704-8^Sperm morphology^LN^sperm-morphology^")
    assert [str(obr[n]) for n in (7, 22, 25)] == ["20261123084000+0100", "20261124050607+0000", "R"]
    spm = parsed.segment("SPM")
    assert [str(spm[n]) for n in (2, 17)] == ["S-01&berlin^A-1&berlin", "20261123084000+0100"]
    assert str(spm[4]) == "SMN^Seminal fluid^HL70487^semen^Seminal fluid^99MORPH"


def test_normal_forms_have_unit_reference_and_interpretation() -> None:
    found = observations(read(full_result()))
    obx = found["primary-normal", "P"]
    assert [str(obx[n]) for n in (2, 5, 6, 7, 8, 11)] == ["NM", "0.62", "%^percent^UCUM", ">=4", "L", "R"]
    assert str(obx[3]).startswith("10622-9^Normal forms^LN^")
    assert str(found["cells-counted", "P"][5]) == "800"
    assert {number for _, number in found} == {"P", "1", "2"}
    assert len(found) == 3 * 22
    assert [str(found["primary-pin_head", "1"][n]) for n in (7, 8)] == ["", ""]


def test_signs_that_separate_fields_are_escaped() -> None:
    parsed = read(full_result(stain_lot="A|B^C&D~E\\F"))
    method = str(observations(parsed)["primary-normal", "1"][17])
    assert method.startswith(r"^Stain: Hematoxylin-eosin, lot A\F\B\S\C\T\D\R\E\E\F. ")
    assert "A|B^C&D~E\\F" in parsed.unescape(method)


def test_a_line_end_in_a_reason_ends_no_segment() -> None:
    result = result_of(slide("a", 8, 200), revision=2, replaces=1, reason="focus\rOBX|1|NM\nOBX\u2028x\x0b\x1c")
    notes = [str(nte[3]) for nte in read(result).segments("NTE")]
    assert r"Revision 2, instead of revision 1: focus OBX\F\1\F\NM OBX x ." in notes
    assert not set(b"\x0b\x1c") & set(message(result))


def test_what_cannot_be_had_has_status_x_and_a_note() -> None:
    parsed = read(result_of(slide("a", 8, 200), slide("b", 60, 200, replicate=2)))
    obx = observations(parsed)["primary-normal", "P"]
    assert [str(obx[n]) for n in (5, 11)] == ["", "X"]
    assert any("count both slides again" in str(nte[3]) for nte in parsed.segments("NTE"))
    broken = read(result_of(slide("a", 0, 0, **BROKEN)))
    assert str(observations(broken)["primary-normal", "1"][11]) == "X"
    assert any("field f broken" in str(nte[3]) for nte in broken.segments("NTE"))


def test_what_is_withdrawn_has_status_w_and_no_value() -> None:
    parsed = read(withdrawn_result())
    assert str(parsed.segment("OBR")[25]) == "C"
    assert {(str(obx[5]), str(obx[11])) for obx in parsed.segments("OBX")} == {("", "W")}
    assert any("Withdrawn" in str(nte[3]) for nte in parsed.segments("NTE"))


def test_test_data_is_marked() -> None:
    assert str(read(result_of(slide("a", 8, 200), lab_tests=True)).segment("MSH")[11]) == "T"


def test_its_id_is_that_of_the_specimen_and_revision() -> None:
    again = result_of(*(smear.slide for smear in full_result().smears), revision=2, replaces=1, reason="why")
    assert message_id(full_result()) != message_id(again)
    assert message(full_result()) == message(full_result())


@pytest.mark.parametrize("kind", ["testicular_tissue", "prepared_semen"])
def test_a_sample_that_has_no_public_code_has_ours(kind: str) -> None:
    from services.sample_types import SampleType

    parsed = read(result_of(slide("a", 8, 200, sample_type=SampleType(kind))))
    assert str(parsed.segment("SPM")[4]) == f"{kind}^{kind.replace('_', ' ').capitalize()}^99MORPH"
