"""Wrong input of every kind ends every command with exit code 2 and one message, never with a traceback."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.small_release import build_small_release
from tests.wrong_input import (
    CONTENTS,
    Outcome,
    all_commands,
    arguments,
    fault_of,
    run,
    wrong_inputs,
    wrong_outputs,
    wrong_values,
)  # fmt: skip

# What makes a command line right; paths are those of `places`. A new command must be entered here.
RIGHT: dict[str, dict[str, str]] = {
    "demo": {},
    "up": {},
    "down": {},
    "status": {},
    "doctor": {},
    "migrate": {},
    "submit": {"folder": "{slides}", "lab": "berlin", "um_per_px": "0.1"},
    "watch": {"batch": "night-1"},
    "night": {},
    "requeue": {"batch": "night-1"},
    "simulate": {},
    "void": {"batch": "night-1", "why": "sent twice"},
    "pause": {"lab": "berlin", "why": "microscope doubtful"},
    "resume": {"lab": "berlin"},
    "cancel": {"lab": "berlin", "batch": "night-1", "why": "wrong slides"},
    "report": {"batch": "night-1"},
    "sql": {"query": "select 1"},
    "release reapply": {"release": "another", "since": "2026-01-01"},
    "smears": {"folder": "{new}", "slides": "1", "fields": "1", "cells": "0", "width": "64", "height": "64"},
    "train": {"config": "{config}", "member": "resnetv2_50", "folder": "{new}"},
    "fuse": {"first": "{slides}", "second": "{slides}", "folder": "{new}"},
    "data check": {"folder": "{slides}", "html": "{new}"},
    "evaluate classifier": {"folder": "{slides}", "release": "{release}"},
    "evaluate forms": {"release": "{release}", "data": "{slides}"},
    "evaluate detector": {"folder": "{annotated}"},
    "evaluate service": {"folder": "{annotated}"},
    "evaluate prevalence": {"folder": "{annotated}", "slides": "2", "cells": "200", "seed": "1"},
    "release build": {
        "efficientnetv2_s": "{slides}", "resnetv2_50": "{slides}", "fusion": "{slides}", "folder": "{new}",
        "crop_um": "16",
    },
    "release compile": {"release": "{release}", "target": "openvino-int8", "data": "{slides}"},
    "release verify": {"folder": "{release}"},
    "release lay-out": {"release": "{release}", "folder": "{new}"},
    "release install": {},
    "release publish": {"folder": "{release}"},
    "release activate": {"release_id": "another"},
    "release derive": {"release_id": "another", "fusion": "{config}", "folder": "{new}"},
    "release list": {},
    "lab list": {},
    "lab set": {"lab": "north", "time_zone": "Europe/Berlin"},
    "lab add": {"lab": "north"},
    "lab token": {"lab": "north", "name": "LIMS", "scope": "read"},
    "lab rotate": {"token_id": "0a1b2c3d"},
    "lab revoke": {"token_id": "0a1b2c3d"},
    "lab tokens": {},
    "lab deliver": {"lab": "north", "fhir": "https://fhir.example.org"},
    "deliveries targets": {},
    "deliveries retry": {"numbers": "1"},
    "deliveries drop": {"numbers": "1", "why": "entered by hand"},
    "lab policy": {"lab": "north"},
    "lab sql-role": {"lab": "north"},
    "lims-check": {"url": "http://127.0.0.1:9", "token_file": "{config}"},
    "bench e2e": {"fields": "{slides}", "um_per_px": "0.1"},
    "bench feed": {},
    "bench ensemble": {"release": "{release}"},
    "bench reapply": {},
}  # fmt: skip
# Paths that a command writes; every other one it reads.
WRITTEN = {
    ("report", "folder"), ("smears", "folder"), ("train", "folder"), ("fuse", "folder"), ("data check", "html"),
    ("evaluate classifier", "html"), ("evaluate detector", "pictures"), ("release build", "folder"),
    ("release lay-out", "folder"), ("release derive", "folder"), ("simulate", "picture"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, a database that no socket leads to, and no process that a refused command could start."""

    class NoneOfOurs(subprocess.Popen[Any]):
        def __init__(self, words: Any, *rest: Any, **options: Any) -> None:
            assert str(words[0]) != sys.executable, f"a refused command started {words}"
            super().__init__(words, *rest, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MORPHBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", "postgresql+psycopg2://morphbatch@/none?host=/nowhere")
    monkeypatch.setattr(subprocess, "Popen", NoneOfOurs)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths that commands take."""
    base = tmp_path_factory.mktemp("right")
    for name in ("slides", "annotated"):
        (base / name / "slide").mkdir(parents=True)
        (base / name / "slide" / "field.jpg").write_bytes(b"an image")
    (base / "annotated" / "annotations.jsonl").write_text('{"image": "slide/field.jpg", "cells": []}\n')
    build_small_release(base / "release")
    (base / "run.toml").write_text('[data]\npath = "."\n')
    return {
        "slides": str(base / "slides"), "annotated": str(base / "annotated"), "release": str(base / "release"),
        "config": str(base / "run.toml"),
    }  # fmt: skip


def right(command: str, places: dict[str, str], new: Path) -> dict[str, str]:
    return {name: value.format(**places, new=new) for name, value in RIGHT[command].items()}


def test_every_command_is_tried() -> None:
    assert set(RIGHT) == set(all_commands())


def _each(*kinds: str) -> list[tuple[str, str]]:
    return [(name, p.name) for name, parameters in all_commands().items() for p in parameters if p.kind in kinds]


@pytest.mark.parametrize("command", all_commands())
def test_an_option_that_does_not_exist(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run([*command.split(), "--no-such-option"], monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert f"morphbatch {command} --help" in outcome.stderr


@pytest.mark.parametrize(("command", "name"), [pair for pair in _each("path") if pair not in WRITTEN])
def test_a_path_to_read_that_holds_something_else(
    command: str,
    name: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: dict[str, Outcome] = {}
    for kind, path in wrong_inputs(tmp_path / "wrong").items():
        given = right(command, places, tmp_path / "new") | {name: str(path)}
        seen[kind] = run(arguments(command, given), monkeypatch, capsys)
    check_all(seen)


@pytest.mark.parametrize(("command", "name"), sorted(WRITTEN))
def test_a_path_to_write_that_cannot_be_written(
    command: str,
    name: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: dict[str, Outcome] = {}
    for kind, path in wrong_outputs(tmp_path / "wrong").items():
        given = right(command, places, tmp_path / "new") | {name: str(path)}
        seen[kind] = run(arguments(command, given), monkeypatch, capsys)
    check_all(seen)


@pytest.mark.parametrize(("command", "name"), _each("int", "float"))
def test_a_number_that_is_none(
    command: str,
    name: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parameter = next(p for p in all_commands()[command] if p.name == name)
    seen: dict[str, Outcome] = {}
    for value in wrong_values(parameter):
        given = right(command, places, tmp_path / "new") | {name: value}
        seen[value] = run(arguments(command, given), monkeypatch, capsys)
    check_all(seen)


@pytest.mark.parametrize(
    "words",
    [
        ["up", "mysql"], ["up", "--s3=ftp"], ["down", "mysql"], ["smears", "new", "--stain=violet"],
        ["train", "run.toml", "--member=resnet18"], ["fuse", ".", ".", "--out=new", "--objective=accuracy"],
        ["evaluate", "detector", ".", "--part=most"], ["release", "compile", ".", "--target=coreml"],
        ["release", "lay-out", ".", "new", "--backend=tvm"], ["release", "reapply", "--release=x", "--since=yesterday"],
        ["submit", ".", "--um-per-px=0.1"], ["submit", ".", "--lab=../x", "--um-per-px=0.1"],
        ["submit", ".", "--lab=x", "--um-per-px=0.1", "--collected-at=yesterday"],
        ["release", "compile", ".", "--target=openvino-int8"],
        ["release", "compile", ".", "--target=tensorrt", "--compute-capability=8.9"], ["bench", "e2e", "--fields=."],
        ["requeue", "night-1", "--slide"], ["sql", "--json"], ["sql", "select 1", "--json", "--csv"],
        ["sql", "select 1", "--role=owner"], ["watch"], ["no-such-command"], ["release", "no-such-command"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_value_that_is_not_one_of_those_there_are(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").touch()
    (tmp_path / "field.jpg").touch()
    assert fault_of(run(words, monkeypatch, capsys)) is None


_TORCH = ("train", "fuse", "evaluate classifier", "evaluate forms", "release build", "release compile")


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
@pytest.mark.parametrize("command", _TORCH)
def test_a_command_that_needs_torch_says_what_to_install(
    command: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = run(arguments(command, right(command, places, tmp_path / "new")), monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "morphbatch[train]" in outcome.stderr


# Commands that work without any setting.
UNCONFIGURED = {
    "smears", "train", "fuse", "data check", "evaluate classifier", "evaluate forms", "evaluate detector",
    "release build", "release compile", "release verify", "release lay-out", "simulate", "lab sql-role",
    "lims-check",
}  # fmt: skip
# These would start a stack.
STARTING = {"demo", "up", "bench e2e", "bench ensemble", "bench feed", "bench reapply"}


@pytest.mark.parametrize("command", sorted(set(RIGHT) - UNCONFIGURED - STARTING))
def test_settings_that_are_wrong(
    command: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments(command, right(command, places, tmp_path / "new"))
    home = tmp_path / "home"
    home.mkdir()
    seen: dict[str, Outcome] = {}
    for kind, content in CONTENTS.items():
        if kind != "empty":
            (home / "stack.env").write_bytes(b"MORPHBATCH_LEASE_SECONDS=" + content)
            seen[kind] = run(words, monkeypatch, capsys)
    (home / "stack.env").unlink()
    for name, value in _WRONG_SETTINGS.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            seen[f"{name}={value}"] = run(words, patch, capsys)
    if command in {"status", "down"}:  # they ask no service, and so need no setting
        seen = {kind: outcome for kind, outcome in seen.items() if outcome.code != 0}
    check_all(seen)
    assert not any("hunter2" in outcome.stderr for outcome in seen.values())


_WRONG_SETTINGS = {
    "MORPHBATCH_LEASE_SECONDS": "soon",
    "MORPHBATCH_ENVIRONMENT": "production",  # with the secrets of development
    "MORPHBATCH_TRITON_ENDPOINT": "http://triton",
    "MORPHBATCH_VISIBILITY_TIMEOUT_S": "20",
}


@pytest.mark.parametrize("command", ["migrate", "watch", "report", "release list", "release install"])
@pytest.mark.parametrize("url", ["hunter2", "mysql://m:hunter2@h/x", "postgresql+psycopg2://m:hunter2@h:port/x"])
def test_a_database_url_that_is_none(
    command: str, url: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", url)
    outcome = run(arguments(command, right(command, places, Path("new"))), monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert "MORPHBATCH_DATABASE_URL" in outcome.stderr
    assert "hunter2" not in outcome.stderr


@pytest.mark.parametrize("name", ["stack.json", "stack.env", "installation.json", "wanted.json", "stack.lock"])
@pytest.mark.parametrize("command", ["status", "down", "down postgres", "doctor", "migrate", "release list"])
def test_a_home_whose_files_are_damaged(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("services.cli.doctor.examine", lambda *_: [])
    seen: dict[str, Outcome] = {}
    for kind, content in CONTENTS.items():
        home = tmp_path / kind
        home.mkdir()
        (home / name).write_bytes(content)
        monkeypatch.setenv("MORPHBATCH_HOME", str(home))
        seen[kind] = run(command.split(), monkeypatch, capsys)
    check_all({kind: outcome for kind, outcome in seen.items() if outcome.code != 0})  # most need that file for nothing


@pytest.mark.parametrize("command", ["status", "up", "down", "migrate", "release list", "bench feed"])
def test_a_home_that_is_a_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").touch()
    outcome = run(command.split(), monkeypatch, capsys)
    assert fault_of(outcome) is None
    assert str(tmp_path / "home") in outcome.stderr or "postgres" in outcome.stderr.lower()


def check_all(seen: dict[str, Outcome]) -> None:
    faults = {kind: fault for kind, outcome in seen.items() if (fault := fault_of(outcome))}
    assert not faults, "\n".join(f"--- {kind}: {fault}" for kind, fault in faults.items())
