"""What a manifest may say, and what is found wrong with it."""

import copy
import json
import re
from datetime import datetime
from typing import Any

import pytest

from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected
from services.intake.validation import BadBatchName, check_names, parse_manifest
from tests.places import CHECKOUT

GOOD: dict[str, Any] = {
    "schema": "morphbatch.manifest/1",
    "lab": "berlin",
    "batch_id": "night-2026-11-23",
    "slides": [
        {
            "slide_id": "slide-01",
            "specimen": "S-7F3A",
            "replicate": 1,
            "stain": "diff-quik",
            "um_per_px": 0.045,
            "fields": [
                {"key": "slide-01/field-001.jpg", "sha256": "0" * 64},
                {"key": "slide-01/field-002.jpg", "sha256": "1" * 64, "cells": [{"box": [0, 0, 40, 30]}]},
            ],
        },
        {
            "slide_id": "slide-02",
            "specimen": "S-7F3A",
            "replicate": 2,
            "stain": "diff-quik",
            "um_per_px": 1,
            "fields": [{"key": "slide-02/crop-1.png", "sha256": "a" * 64, "kind": "crop"}],
        },
    ],
}
DELETE = object()


def _parse(document: object, lab: str = "berlin", batch_id: str = "night-2026-11-23") -> Manifest:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(data, lab=lab, batch_id=batch_id)


def _problems(document: object, **names: str) -> list[tuple[str, str]]:
    with pytest.raises(ManifestRejected) as raised:
        _parse(document, **names)
    return [(p.path, p.reason) for p in raised.value.problems]


def _changed(*changes: tuple[str, object]) -> dict[str, Any]:
    """A good manifest with `slides.0.fields.1.key`-like places set to other values."""
    document = copy.deepcopy(GOOD)
    for path, value in changes:
        *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        place: Any = document
        for parent in parents:
            place = place[parent]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
    return document


def test_a_good_manifest_is_read_whole() -> None:
    manifest = _parse(GOOD)
    assert (manifest.lab, manifest.batch_id, manifest.field_count) == ("berlin", "night-2026-11-23", 3)
    first, second = manifest.slides
    assert first.fields[1].cells is not None
    assert first.fields[1].cells[0].box == (0, 0, 40, 30)
    assert (first.fields[0].kind, second.fields[0].kind) == ("field", "crop")
    assert first.um_per_px == 0.045
    assert manifest.as_json()["schema"] == "morphbatch.manifest/1"
    assert _parse(manifest.as_json()) == manifest


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "line 1, column 2"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"schema": NaN}', "cannot be read"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "nested"),
    ],
)
def test_what_is_not_json(data: bytes, words: str) -> None:
    with pytest.raises(ManifestRejected, match=words) as raised:
        _parse(data)
    assert [p.reason for p in raised.value.problems] == ["manifest_not_json"]


def test_a_manifest_beyond_the_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.validation.MAX_MANIFEST_BYTES", 100)
    assert _problems(GOOD) == [("", "manifest_too_large")]


def test_a_key_given_twice_in_one_object() -> None:
    data = json.dumps(GOOD).replace('"stain"', '"replicate": 2, "stain"', 1).encode()
    assert _problems(data) == [("", "manifest_repeated_key")]


@pytest.mark.parametrize(
    ("path", "value", "where", "reason"),
    [
        ("schema", "morphbatch.manifest/2", "schema", "manifest_wrong_schema"),
        ("schema", DELETE, "schema", "manifest_wrong_schema"),
        ("schema", 1, "schema", "manifest_wrong_schema"),
        ("lab", "oslo", "lab", "manifest_lab_mismatch"),
        ("batch_id", "night-2", "batch_id", "manifest_batch_mismatch"),
        ("lab", DELETE, "lab", "manifest_missing_key"),
        ("comment", "hello", "comment", "manifest_unknown_key"),
        ("slides.0.stian", "x", "slides[0].stian", "manifest_unknown_key"),
        ("slides.0.fields.0.size", 1, "slides[0].fields[0].size", "manifest_unknown_key"),
        ("slides", [], "slides", "manifest_bad_value"),
        ("slides", {}, "slides", "manifest_bad_value"),
        ("slides.0", 7, "slides[0]", "manifest_bad_value"),
        ("slides.0.fields", [], "slides[0].fields", "manifest_bad_value"),
        ("slides.1.slide_id", "slide-01", "slides[1].slide_id", "manifest_duplicate_slide"),
        ("slides.1.fields.0.key", "slide-01/field-002.jpg", "slides[1].fields[0].key", "manifest_duplicate_field"),
        ("slides.0.fields.0.sha256", "0" * 63, "slides[0].fields[0].sha256", "manifest_bad_value"),
        ("slides.0.fields.0.sha256", None, "slides[0].fields[0].sha256", "manifest_bad_value"),
        ("slides.0.fields.0.kind", "cell", "slides[0].fields[0].kind", "manifest_bad_value"),
        ("slides.0.fields.1.kind", "crop", "slides[0].fields[1]", "manifest_bad_value"),
        ("slides.0.fields.1.cells", [{"box": [0, 0, 9, 9]}] * 2, "slides[0].fields[1].cells", "manifest_bad_value"),
        ("slides.0.fields.0.key", "s/\udcff.jpg", "slides[0].fields[0].key", "manifest_bad_value"),
        ("slides.0.fields.0.key", f"s/{'ü' * 128}.jpg", "slides[0].fields[0].key", "manifest_bad_value"),
        ("slides.0.replicate", 3, "slides[0].replicate", "manifest_bad_value"),
        ("slides.0.replicate", "1", "slides[0].replicate", "manifest_bad_value"),
        ("slides.0.stain", "", "slides[0].stain", "manifest_bad_value"),
        ("slides.0.stain", "x\0y", "slides[0].stain", "manifest_bad_value"),
        ("slides.0.collected_at", "2026-11-23T08:40:00", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.collected_at", "2026-11-23", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.collected_at", "2026-11-31T08:40:00+01:00", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.collected_at", "1732435200", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.collected_at", 1732435200, "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.collected_at", "2999-11-23T08:40:00+01:00", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.order_number", "R|26", "slides[0].order_number", "manifest_bad_value"),
        ("slides.0.order_number", 4711, "slides[0].order_number", "manifest_bad_value"),
        ("slides.0.order_number", "Anna_Schmidt", "slides[0].order_number", "personal_data"),
        ("slides.0.accession_number", "12.03.1987", "slides[0].accession_number", "personal_data"),
        ("slides.0.stain_lot", "SCHMIDT-ANNA", "slides[0].stain_lot", "personal_data"),
        ("slides.0.sample_type", "Semen", "slides[0].sample_type", "manifest_bad_value"),
        ("slides.0.collected_at", "0001-01-01T00:00:00+14:00", "slides[0].collected_at", "manifest_bad_value"),
        ("slides.0.stain", "=giemsa", "slides[0].stain", "manifest_bad_value"),
        ("slides.0.stain", "g" * 64, "slides[0].stain", "manifest_bad_value"),
        ("slides.0.specimen", "", "slides[0].specimen", "manifest_bad_value"),
        ("slides.0.um_per_px", DELETE, "slides[0].um_per_px", "um_per_px_missing"),
        ("slides.0.um_per_px", None, "slides[0].um_per_px", "um_per_px_missing"),
        ("slides.0.um_per_px", "0.045", "slides[0].um_per_px", "um_per_px_missing"),
        ("slides.0.um_per_px", 0, "slides[0].um_per_px", "um_per_px_absurd"),
        ("slides.0.um_per_px", 0.0099, "slides[0].um_per_px", "um_per_px_absurd"),
        ("slides.0.um_per_px", -0.1, "slides[0].um_per_px", "um_per_px_absurd"),
        ("slides.0.um_per_px", 45.0, "slides[0].um_per_px", "um_per_px_absurd"),
        ("slides.0.um_per_px", 1e999, "slides[0].um_per_px", "manifest_not_json"),
        ("slides.0.fields.1.cells.0.box", [0, 0, 0, 30], "slides[0].fields[1].cells[0]", "manifest_bad_value"),
        ("slides.0.fields.1.cells.0.box", [-1, 0, 9, 30], "slides[0].fields[1].cells[0].box[0]", "manifest_bad_value"),
        ("slides.0.fields.1.cells.0.box", [0, 0, 9.5, 30], "slides[0].fields[1].cells[0].box[2]", "manifest_bad_value"),
        ("slides.0.fields.1.cells.0.box", [0, 0, 9], "slides[0].fields[1].cells[0].box[3]", "manifest_missing_key"),
    ],
)
def test_a_fault_has_its_path_and_reason(path: str, value: object, where: str, reason: str) -> None:
    expected = ("", reason) if reason == "manifest_not_json" else (where, reason)
    assert _problems(_changed((path, value))) == [expected]


@pytest.mark.parametrize(
    "key",
    [
        "../other/field.jpg",
        "slide-01/../../x.jpg",
        "..",
        "/etc/passwd",
        "incoming/oslo/night-1/field.jpg",
        "results/x.jpg",
        "s3://bucket/field.jpg",
        "https://host/field.jpg",
        "slide-01\\field.jpg",
        "C:/images/field.jpg",
    ],
)
def test_a_key_outside_the_batch(key: str) -> None:
    assert _problems(_changed(("slides.0.fields.0.key", key))) == [("slides[0].fields[0].key", "field_outside_batch")]


@pytest.mark.parametrize(
    "key",
    ["", "a//b.jpg", "./a.jpg", "a/", "a\0b.jpg", "a\nb.jpg", "a\ud800.jpg", "manifest.json", "ü" * 300],
)
def test_a_key_that_is_no_object_key(key: str) -> None:
    assert _problems(_changed(("slides.0.fields.0.key", key))) == [("slides[0].fields[0].key", "manifest_bad_value")]


@pytest.mark.parametrize(
    "name",
    [
        *("Screenshot at 2.22.11\u202fPM.jpg", "obr\u00a0v 13.jpg", "スライド\u30001.jpg", "Mikro\u00adskop.jpg"),
        *("a\u200e1.jpg", "שקופית\u200f.jpg", "z\u200dw.jpg", "\ufefffield.jpg", "Größe.jpg", "\ue000.jpg"),
    ],
)
def test_invisible_characters_that_systems_write_are_taken(name: str) -> None:
    manifest = _parse(_changed(("slides.0.fields.0.key", f"slide-01/{name}")))
    assert manifest.slides[0].fields[0].key == f"slide-01/{name}"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a\x07b.jpg", "U+0007"),
        ("a\u2028b.jpg", "U+2028 (line separator) as character 2"),
        ("gnp\u202egpj.exe", "U+202E (right-to-left override) as character 4"),
        ("ab\uffff.jpg", "U+FFFF"),
    ],
)
def test_a_character_that_is_refused_is_named(key: str, said: str) -> None:
    with pytest.raises(ManifestRejected) as raised:
        _parse(_changed(("slides.0.fields.0.key", key)))
    [problem] = raised.value.problems
    assert said in problem.message


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("slides", [{}] * 10_001, "too_many_slides"),
        ("slides.0.fields", [{}] * 10_001, "too_many_fields"),
        ("slides.0.fields", [{"cells": [{}] * 5_000}] * 101, "too_many_cells"),
        ("slides.0.fields.0", {f"x{n}": 1 for n in range(200_000)}, "manifest_unknown_key"),
    ],
)
def test_what_no_batch_holds_is_refused_before_it_is_looked_into(path: str, value: object, reason: str) -> None:
    [(_, found)] = _problems(_changed((path, value)))
    assert found == reason


def test_a_key_repeated_among_many_is_found_in_one_pass() -> None:
    data = b"{" + b",".join(b'"k%d":1' % n for n in range(200_000)) + b',"k7":1}'
    assert _problems(data) == [("", "manifest_repeated_key")]


def test_all_faults_at_once() -> None:
    document = _changed(
        ("schema", "x"),
        ("extra", 1),
        ("slides.0.um_per_px", 9),
        ("slides.0.fields.0.key", "../x"),
        ("slides.1.slide_id", "slide-01"),
        ("slides.1.specimen", "Anna_Schmidt"),
        ("slides.1.fields.0.sha256", "x"),
    )
    assert set(_problems(document, lab="oslo")) == {
        ("schema", "manifest_wrong_schema"),
        ("extra", "manifest_unknown_key"),
        ("slides[0].um_per_px", "um_per_px_absurd"),
        ("slides[0].fields[0].key", "field_outside_batch"),
        ("slides[1].slide_id", "manifest_duplicate_slide"),
        ("slides[1].specimen", "personal_data"),
        ("slides[1].fields[0].sha256", "manifest_bad_value"),
        ("lab", "manifest_lab_mismatch"),
    }


def _with_fields(count: int) -> dict[str, Any]:
    half = count // 2
    fields = [{"key": f"f/{n}.jpg", "sha256": "0" * 64} for n in range(count)]
    return _changed(("slides.0.fields", fields[:half]), ("slides.1.fields", fields[half:]))


def test_ten_thousand_fields_and_one_more() -> None:
    assert _parse(_with_fields(10_000)).field_count == 10_000
    assert _problems(_with_fields(10_001)) == [("slides", "too_many_fields")]


def test_a_thousand_faults_are_cut_short() -> None:
    document = _changed(("slides.0.fields", [{"key": f"../{n}", "sha256": "0" * 64} for n in range(1000)]))
    problems = _problems(document)
    assert len(problems) == 501
    assert problems[-1] == ("", "manifest_more_problems")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("slides.0.specimen", "Anna_Schmidt"),
        ("slides.0.slide_id", "Schmidt-1987-03-12"),
        ("slides.0.fields.0.key", "Anna_Schmidt/field-001.jpg"),
        ("slides.0.fields.0.key", "slide-01/19870312.jpg"),
        ("slides.0.fields.0.key", "slide-01/Müller, Jörg.jpg"),
        ("slides.0.stain", "Anna Schmidt"),
    ],
)
def test_personal_data_is_refused_and_not_repeated(place: str, value: str) -> None:
    with pytest.raises(ManifestRejected) as raised:
        _parse(_changed((place, value)))
    [problem] = raised.value.problems
    assert problem.reason == "personal_data"
    for word in ("Anna", "Schmidt", "Müller", "1987", "0312"):
        assert word not in str(raised.value) + json.dumps(problem.as_json())


def test_an_unknown_key_is_named_only_when_it_names_nobody() -> None:
    assert _problems(_changed(("slides.0.patient_name", "x"))) == [("slides[0].patient_name", "manifest_unknown_key")]
    assert _problems(_changed(("slides.0.Anna Schmidt", "x"))) == [("slides[0].…", "manifest_unknown_key")]
    assert _problems(_changed(("slides.0.Anna_Schmidt", "x"))) == [("slides[0].…", "manifest_unknown_key")]


@pytest.mark.parametrize(
    "stain",
    ["Bryan-Leishman", "May-Grünwald-Giemsa", "Papanicolaou (mod.)", "Diff-Quik®", "Bryan's Leishman", "吉姆萨"],
)
def test_a_stain_is_written_as_laboratories_write_it(stain: str) -> None:
    assert _parse(_changed(("slides.0.stain", stain))).slides[0].stain == stain


@pytest.mark.parametrize("at", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-03-29T00:59:59.5Z"])
def test_when_a_specimen_was_collected_is_a_moment_with_its_offset(at: str) -> None:
    collected = _parse(_changed(("slides.0.collected_at", at))).slides[0].collected_at
    assert collected == datetime.fromisoformat(at)
    assert _parse(GOOD).slides[0].collected_at is None


def test_the_numbers_of_an_order_and_its_specimen_are_kept_as_given() -> None:
    given = {
        "order_number": "R-26/004711",
        "accession_number": "A26-01234",
        "sample_type": "semen",
        "stain_lot": "88124",
    }
    document = _changed(*((f"slides.0.{key}", value) for key, value in given.items()))
    said = _parse(document).as_json()["slides"]
    assert given.items() <= said[0].items()
    assert not given.keys() & said[1].keys()


@pytest.mark.parametrize("key", ["order_number", "accession_number", "sample_type"])
def test_slides_of_one_specimen_belong_to_one_order(key: str) -> None:
    first, other = ("semen", "prepared_semen") if key == "sample_type" else ("A26-01", "A26-02")
    of_both = _changed((f"slides.0.{key}", first), (f"slides.1.{key}", other))
    assert _problems(of_both) == [(f"slides[1].{key}", "manifest_specimen_differs")]
    of_both["slides"][1]["specimen"] = "S-0002"
    assert _parse(of_both)


def test_the_fingerprint_follows_the_content_alone() -> None:
    same = _changed(("slides.0.fields.0.kind", "field"), ("slides.1.fields.0.sha256", "A" * 64))
    reordered = dict(reversed(same.items()))
    assert _parse(json.dumps(reordered, indent=4).encode()).fingerprint() == _parse(GOOD).fingerprint()
    swapped = _changed(("slides", GOOD["slides"][::-1]))
    assert _parse(swapped).fingerprint() != _parse(GOOD).fingerprint()
    assert _parse(_changed(("slides.0.stain", "giemsa"))).fingerprint() != _parse(GOOD).fingerprint()


@pytest.mark.parametrize(("lab", "batch"), [("berlin", "night-1"), ("a", "2026.11.23_b")])
def test_names_that_can_be_used(lab: str, batch: str) -> None:
    check_names(lab, batch)


@pytest.mark.parametrize(
    ("lab", "batch"),
    [
        ("Berlin", "n"),
        ("", "n"),
        ("a" * 64, "n"),
        ("a", "-n"),
        ("a", "n/1"),
        ("a", ".."),
        ("a", "n\n"),
        ("a", "anna-schmidt"),
    ],
)
def test_names_that_cannot(lab: str, batch: str) -> None:
    with pytest.raises(BadBatchName) as raised:
        check_names(lab, batch)
    assert "schmidt" not in str(raised.value)


def test_the_page_for_a_lims_says_what_the_service_does() -> None:
    root = CHECKOUT
    page = (root / "docs" / "manifest.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    _parse(example.encode(), lab="north-clinic")
    sources = "".join(path.read_text() for path in (root / "services" / "intake").glob("*.py"))
    reasons = set(re.findall(r'"(manifest_[a-z_]+|um_per_px_[a-z]+|field_outside_batch|too_many_fields)"', sources))
    events = {"manifest_refused", "manifest_rejected"}  # of the audit, not of a problem
    assert len(reasons) > 10
    assert {reason for reason in reasons - events if f"`{reason}`" not in page} == set()
