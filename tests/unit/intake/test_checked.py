"""A large manifest is checked apart, within limits."""

import json
from typing import Any

import pytest

from services.intake import checked
from services.intake.problems import ManifestRejected


def large(**slide: Any) -> bytes:
    fields = [{"key": f"slide-01/field-{n:05}.jpg", "sha256": "0" * 64} for n in range(3000)]
    whole = {"slide_id": "slide-01", "specimen": "S-1", "replicate": 1, "stain": "shorr", "um_per_px": 0.1, **slide}
    slides = [{**whole, "fields": fields}]
    manifest = {"schema": "morphbatch.manifest/1", "lab": "berlin", "batch_id": "night-1", "slides": slides}
    data = json.dumps(manifest).encode()
    assert len(data) > checked.SMALL_BYTES
    return data


def parse(data: bytes) -> Any:
    return checked.parse_checked(data, lab="berlin", batch_id="night-1")


def test_a_large_manifest_is_taken() -> None:
    assert parse(large()).field_count == 3000


def test_its_problems_come_back() -> None:
    with pytest.raises(ManifestRejected) as raised:
        parse(large(replicate=3))
    assert [(p.path, p.reason) for p in raised.value.problems] == [("slides[0].replicate", "manifest_bad_value")]


def test_one_whose_check_is_killed_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked.sys, "executable", "/bin/false")
    with pytest.raises(ManifestRejected) as raised:
        parse(large())
    assert [p.reason for p in raised.value.problems] == ["manifest_too_costly"]


def test_one_that_is_never_done_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "_WALL_S", 0.0)
    with pytest.raises(ManifestRejected) as raised:
        parse(large())
    assert [p.reason for p in raised.value.problems] == ["manifest_too_costly"]
