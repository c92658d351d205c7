"""A large manifest is checked apart, within limits."""

import json
import sys
from pathlib import Path
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


def ends_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str) -> None:
    """Have the process that checks end as the shell's `words` say."""
    program = tmp_path / "check"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)
    monkeypatch.setattr(checked.sys, "executable", str(program))


COSTLY = {
    "processor time": "kill -XCPU $$",
    "memory, said by Python": f"exit {checked._OUT_OF_MEMORY}",
    "memory, said by Rust": "echo 'memory allocation of 64 bytes failed' >&2; kill -ABRT $$",
}
NOT_THE_MANIFEST = {
    "killed": "kill -KILL $$",
    "crashed": "kill -SEGV $$",
    "an error of ours": "echo 'ModuleNotFoundError' >&2; exit 1",
}


@pytest.mark.parametrize("how", COSTLY)
def test_one_that_meets_a_limit_is_rejected(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends_with(monkeypatch, tmp_path, COSTLY[how])
    with pytest.raises(ManifestRejected) as raised:
        parse(large())
    assert [p.reason for p in raised.value.problems] == ["manifest_too_costly"]
    assert how.split(",")[0] in raised.value.problems[0].message


@pytest.mark.parametrize("how", NOT_THE_MANIFEST)
def test_a_crash_for_another_reason_is_not_the_manifests_fault(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends_with(monkeypatch, tmp_path, NOT_THE_MANIFEST[how])
    with pytest.raises(checked.ManifestNotChecked, match="lab berlin, batch night-1"):
        parse(large())
    assert "the check of a manifest ended with" in caplog.text


@pytest.mark.parametrize("sick", [("_WALL_S", 0.0), ("sys.executable", "/nowhere")])
def test_a_machine_that_cannot_check_it_now_is_not_the_manifests_fault(
    sick: tuple[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"services.intake.checked.{sick[0]}", sick[1])
    with pytest.raises(checked.ManifestNotChecked):
        parse(large())


@pytest.mark.parametrize(
    ("check", "limit"),
    [
        ("checked.parse_manifest = lambda *_, **__: bytearray(2**32)", "memory"),
        ("checked._CPU_S = 1; checked.parse_manifest = lambda *_, **__: max(iter(int, 1))", "processor time"),
    ],
)
def test_its_process_ends_at_its_limits(
    check: str, limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = f"import sys; from services.intake import checked; {check}; sys.exit(checked.main('a', 'b'))"
    ends_with(monkeypatch, tmp_path, f'exec "{sys.executable}" -c "{program}"')
    with pytest.raises(ManifestRejected) as raised:
        parse(large())
    assert limit in raised.value.problems[0].message
