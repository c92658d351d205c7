"""What is built around TensorRT: plans, names, keys and refusals, with NVIDIA's programs played by small scripts."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.releases.schema import MEMBERS, Release
from tests.small_release import CROP_PX, build_small_release
from triton_models.compile import tensorrt
from triton_models.compile.tensorrt import (
    EngineFailed,
    Machine,
    MachineUnsuited,
    Plan,
    compile_tensorrt,
    engine_key,
    require_machine,
    run_form,
    version_of,
)
from triton_models.forms.form import Form, Profile, read_form

H100 = Machine("11.2.1", "NVIDIA H100 80GB HBM3", "9.0")
FORM = "tensorrt-fp16-11.2.1-nvidia-h100-80gb-hbm3"

TRTEXEC = f"""#!{sys.executable}
import json, os, pathlib, sys
print("&&&& RUNNING TensorRT.trtexec [TensorRT v110201] [b3] # trtexec " + " ".join(sys.argv[1:]))
given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
with open(os.environ["RAN"], "a") as ran:
    ran.write(json.dumps(["trtexec", *sys.argv[1:]]) + "\\n")
if "--onnx" in given:
    if "FAIL" in os.environ:
        sys.exit("[E] no such layer")
    pathlib.Path(given["--saveEngine"]).write_bytes(b"engine of " + pathlib.Path(given["--onnx"]).read_bytes()[:40])
    pathlib.Path(given["--timingCacheFile"]).write_text("timings")
if "--loadEngine" in given:
    assert pathlib.Path(given["--loadEngine"]).exists()
    rows = int(given["--shapes"].removeprefix("CROPS:").split("x")[0])
    crops = pathlib.Path(given["--loadInputs"].removeprefix("CROPS:")).read_bytes()
    assert len(crops) % rows == 0
    side = len(crops) // rows
    values = [float(crops[row * side] + column) for row in range(rows) for column in range(18)]
    answer = [{{"name": "LOGITS", "dimensions": f"{{rows}}x18", "values": values}}]
    pathlib.Path(given["--exportOutput"]).write_text(json.dumps(answer))
"""

NVIDIA_SMI = """#!/bin/sh
echo "$GPUS"
"""


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Release]:
    """A small release whose weights are stored as int8."""
    return tmp_path / "release", build_small_release(tmp_path / "release", compressed=True)


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's programs on PATH; the file that lists what was run."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("trtexec", TRTEXEC), ("nvidia-smi", NVIDIA_SMI)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GPUS", "NVIDIA H100 80GB HBM3, 9.0\nNVIDIA H100 80GB HBM3, 9.0")
    ran = tmp_path / "ran.jsonl"
    monkeypatch.setenv("RAN", str(ran))
    return ran


def crops(rows: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (rows, CROP_PX, CROP_PX, 3), np.uint8)


def build(folder: Path, release: Release, *, measured: dict[str, object] | None = None) -> Form:
    return compile_tensorrt(folder, release, lambda _folder, _form: measured or {})


def test_the_machine_is_what_nvidias_programs_say(nvidia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine.here() == H100
    monkeypatch.setenv("GPUS", "NVIDIA H100, 9.0\nNVIDIA L4, 8.9")
    with pytest.raises(MachineUnsuited, match=r"NVIDIA H100, 9\.0, NVIDIA L4, 8\.9"):
        Machine.here()
    monkeypatch.setenv("GPUS", "")
    with pytest.raises(MachineUnsuited, match="no GPU"):
        Machine.here()


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b12] # trtexec --help", "10.16.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110201]", "11.2.1"),
        ("[I] TensorRT version: 11.4.0\n[I] Loading standard plugins", "11.4.0"),
    ],
)
def test_trtexec_says_its_version(said: str, version: str) -> None:
    assert version_of(said) == version


def test_without_trtexec_one_is_told_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineUnsuited, match="trtexec is not installed: run this on the GPU that will serve"):
        Machine.here()
    with pytest.raises(MachineUnsuited, match="does not state its version"):
        version_of("command not found")


def test_nvidia_smi_must_be_there_too(nvidia: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(tmp_path / "programs" / "trtexec", only)
    monkeypatch.setenv("PATH", str(only))
    with pytest.raises(MachineUnsuited, match="nvidia-smi is not installed"):
        Machine.here()


def test_the_key_changes_with_all_that_an_engine_depends_on() -> None:
    profile = Profile(least=1, best=32, most=64)
    key = engine_key("a" * 64, H100, "fp16", profile, ("--x", "--y"))
    assert key == engine_key("a" * 64, H100, "fp16", profile, ("--y", "--x"))
    others = {
        engine_key("b" * 64, H100, "fp16", profile, ("--x", "--y")),
        engine_key("a" * 64, replace(H100, tensorrt="11.2.2"), "fp16", profile, ("--x", "--y")),
        engine_key("a" * 64, replace(H100, product="NVIDIA H200"), "fp16", profile, ("--x", "--y")),
        engine_key("a" * 64, replace(H100, compute_capability="10.0"), "fp16", profile, ("--x", "--y")),
        engine_key("a" * 64, H100, "int8", profile, ("--x", "--y")),
        engine_key("a" * 64, H100, "fp16", Profile(least=1, best=16, most=64), ("--x", "--y")),
        engine_key("a" * 64, H100, "fp16", profile, ("--x",)),
    }
    assert len(others | {key}) == 8


def test_the_plan_is_a_strongly_typed_network_with_one_profile(small: tuple[Path, Release]) -> None:
    folder, release = small
    plan = Plan(release, H100, folder, Path("/w"), Path("/o"), Path("/c/timing.cache"))
    assert plan.form_name == FORM
    engine = plan.engine(MEMBERS[0])
    onnx_hash = release.files[f"{MEMBERS[0]}/model.onnx"].sha256
    assert engine == f"{MEMBERS[0]}/{onnx_hash[:12]}-trt11.2.1-sm90-{plan.key(MEMBERS[0])[:8]}.plan"
    assert plan.build(MEMBERS[0]) == [
        "trtexec",
        f"--onnx=/w/{MEMBERS[0]}/fp16.onnx",
        f"--saveEngine=/o/{engine}",
        "--timingCacheFile=/c/timing.cache",
        "--stronglyTyped",
        "--memPoolSize=workspace:4096",
        "--builderOptimizationLevel=3",
        "--skipInference",
        "--minShapes=CROPS:1x32x32x3",
        "--optShapes=CROPS:32x32x32x3",
        "--maxShapes=CROPS:64x32x32x3",
    ]
    # Gone since TensorRT 11: an unknown option fails the build.
    assert not {"--fp16", "--int8", "--best"} & set(plan.build(MEMBERS[0]))


def test_a_dry_run_needs_neither_gpu_nor_tensorrt(
    small: tuple[Path, Release], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, release = small
    arguments = ["release", "compile", str(folder), "--target", "tensorrt", "--dry-run"]
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, [*arguments, "--machine", "11.2.1,NVIDIA H100 80GB HBM3,9.0", "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    plan = Plan(release, H100, folder, Path("WORK"), Path("WORK/out"), Path())
    assert (shown["form"], shown["engines"]) == (FORM, {member: plan.engine(member) for member in MEMBERS})
    assert [command.split()[0].rpartition("/")[2] for command in shown["commands"]] == ["trtexec", "trtexec"]
    for member, command in zip(MEMBERS, shown["commands"], strict=True):
        assert f"--saveEngine=WORK/out/{plan.engine(member)}" in command
    assert not (folder / "forms").exists()

    unknown = CliRunner().invoke(app, arguments)
    assert unknown.exit_code == 0
    assert "trtexec is not installed" in unknown.stderr
    assert "trtTENSORRT_VERSION-smCAPABILITY" in unknown.stdout


def test_what_is_shown_is_what_is_run(small: tuple[Path, Release], nvidia: Path) -> None:
    folder, release = small
    form = build(folder, release, measured={"cells": 8})
    assert read_form(folder, release, FORM) == form
    assert form.measured == {"cells": 8}
    assert form.profile == Profile(least=1, best=32, most=64)
    ran = [json.loads(line) for line in nvidia.read_text().splitlines()]
    built = [call for call in ran if any(argument.startswith("--onnx=") for argument in call)]
    assert [call[0] for call in ran] == ["trtexec"] * 3  # its version, and a network each
    plan = Plan(release, H100, folder, Path("/w"), Path("/o"), Path("/c"))
    for member, call in zip(MEMBERS, built, strict=True):
        assert {flag for flag in call if "Shapes" in flag} <= set(plan.flags)
        assert (folder / "forms" / FORM / plan.engine(member)).read_bytes().startswith(b"engine of ")
        cache = next(flag for flag in call if flag.startswith("--timingCacheFile=")).partition("=")[2]
        assert Path(cache).read_text() == "timings"  # kept for the next build
    assert sorted(path.name for path in (folder / "forms").iterdir()) == [FORM]


def test_engines_answer_in_batches_of_the_profile(small: tuple[Path, Release], nvidia: Path) -> None:
    folder, release = small
    form = build(folder, release)
    given = crops(70)
    found = run_form(folder, release, form, given)
    expected = given[:, 0, 0, 0].astype(np.float32)[:, None] + np.arange(18, dtype=np.float32)
    for member in MEMBERS:
        np.testing.assert_array_equal(found[member], expected)
    loads = [line for line in nvidia.read_text().splitlines() if "--loadEngine" in line]
    assert [line.count("CROPS:64x") for line in loads] == [1, 0, 1, 0]


def test_engines_of_another_machine_are_refused(
    small: tuple[Path, Release], nvidia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, release = small
    form = build(folder, release)
    require_machine(form, release, H100)
    for other, named in (
        (replace(H100, tensorrt="11.4.0"), "tensorrt 11.2.1 instead of 11.4.0"),
        (replace(H100, product="NVIDIA H200"), "product NVIDIA H100 80GB HBM3 instead of NVIDIA H200"),
    ):
        with pytest.raises(MachineUnsuited, match=named) as caught:
            require_machine(form, release, other)
        assert "--target tensorrt" in str(caught.value)
    monkeypatch.setenv("GPUS", "NVIDIA L4, 8.9")
    with pytest.raises(MachineUnsuited, match=r"compute_capability 9\.0 instead of 8\.9"):
        run_form(folder, release, form, crops(1))
    monkeypatch.setattr(tensorrt, "_BUILD", ("--stronglyTyped",))
    with pytest.raises(MachineUnsuited, match="by other flags"):
        require_machine(form, release, H100)


def test_a_failed_build_leaves_nothing(
    small: tuple[Path, Release], nvidia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, release = small
    monkeypatch.setenv("FAIL", "yes")
    with pytest.raises(EngineFailed, match="no such layer"):
        build(folder, release)
    assert list((folder / "forms").iterdir()) == []
