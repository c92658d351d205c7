"""TensorRT-RTX without a GPU: real engines of the shipped release, how they are laid out, and what is refused.

The engines themselves run on an RTX GPU only. What drives them there is tried against a CUDA that is played: its memory
is the host's, and its engine adds up a crop's pixels.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.local.triton import GpuMissing, find_environment, require_gpu
from services.releases.schema import MEMBERS, Release, verify_release
from tests.places import CHECKOUT
from triton_models.forms.form import TENSORRT_RTX, read_form
from triton_models.layout.repository import lay_out_repository
from triton_models.layout.served_here import SHIPPED

ENVIRONMENT = CHECKOUT / ".venv-rtx"
PYTHON = ENVIRONMENT / "bin" / "python"
CAPABILITIES = ("8.9", "12.0")

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "ready").exists(), reason="`make rtx` makes the environment with TensorRT-RTX"
)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`morphbatch ARGUMENTS` in the environment with TensorRT-RTX, on a machine without a GPU."""
    return subprocess.run(
        [PYTHON, "-m", "services.cli.main", *arguments],
        cwd=CHECKOUT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The shipped release with its form, what the command answered, and what it said."""
    folder = tmp_path_factory.mktemp("rtx") / "release"
    shutil.copytree(SHIPPED, folder)
    capabilities = [f"--compute-capability={capability}" for capability in CAPABILITIES]
    done = run("release", "compile", folder, "--target=tensorrt-rtx", *capabilities, "--cells=36", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


@pytest.fixture
def release(compiled: tuple[Path, dict[str, Any], str]) -> Release:
    """The document of the shipped release."""
    return verify_release(compiled[0])


def test_the_shipped_members_are_built_without_a_gpu_and_without_a_warning(
    compiled: tuple[Path, dict[str, Any], str], release: Release
) -> None:
    folder, answered, said = compiled
    form = read_form(folder, release, TENSORRT_RTX)
    assert form.machine["compute_capabilities"] == "8.9,12.0"
    side = release.crop_px
    for member in MEMBERS:
        built = answered["measured"]["built"][member]
        assert built["inputs"] == {"CROPS": ["UINT8", [-1, side, side, 3]]}
        assert built["outputs"] == {"LOGITS": ["FLOAT", [-1, len(release.classes)]]}
        assert built["batches"] == [1, 64, 256]
        assert built["warnings"] == []  # none of an FP16 mean or spread that could overflow
        assert built["layers"] > 150
        engine = folder / "forms" / TENSORRT_RTX / form.members[member]
        weights = 2 * 20e6  # bytes: FP16, some 20 million
        assert weights < engine.stat().st_size < 1.4 * weights
    away = answered["measured"]["fp16_on_cpu"]["difference"]
    assert all(away[member]["max_abs"] < 0.01 for member in MEMBERS), away
    assert away["fused"]["same_class"] == 1
    assert "an RTX GPU with its driver, and finds none here" in answered["measured"]["on_gpu"]["not_run"]
    assert "the engines were not run" in said


def test_it_is_reported_as_not_run_where_there_is_no_gpu(compiled: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, _ = compiled
    verified = run("release", "verify", folder, "--cells=8", "--form", TENSORRT_RTX, "--json")
    assert verified.returncode == 1
    assert "was not verified" in verified.stderr
    *_, proof = json.loads(verified.stdout)["forms"]
    assert (proof["form"], proof["proven"], proof["fault"]) == (TENSORRT_RTX, False, None)
    assert "finds none here" in proof["not_run"]


def test_other_gpus_are_refused(tmp_path: Path) -> None:
    refused = run("release", "compile", SHIPPED, "--target=tensorrt-rtx", "--compute-capability=9.0")
    assert refused.returncode == 2
    assert "7.5, 8.0, 8.6, 8.9, 12.0, 12.1, not 9.0" in " ".join(refused.stderr.replace("│", " ").split())


def test_the_server_is_told_to_run_it_on_a_gpu_and_refuses_elsewhere(
    compiled: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    folder, _, _ = compiled
    lay_out_repository(folder, tmp_path / "repository", form=TENSORRT_RTX)
    for member in MEMBERS:
        config = (tmp_path / "repository" / member / "config.pbtxt").read_text()
        assert "max_batch_size: 256" in config
        assert "kind: KIND_GPU" in config
        assert {path.name for path in (tmp_path / "repository" / member / "1").iterdir()} == {
            "model.engine", "model.py", "network.py", "tensors.py",
        }  # fmt: skip
    with pytest.raises(GpuMissing, match=r"no NVIDIA driver|no GPU"):
        require_gpu(find_environment(ENVIRONMENT), TENSORRT_RTX)
    with pytest.raises(GpuMissing, match="tensorrt_rtx_bindings is not installed"):
        require_gpu(find_environment(None), TENSORRT_RTX)


def test_what_drives_an_engine_moves_every_crop_and_every_logit(tmp_path: Path) -> None:
    program = Path(__file__).with_name("played_cuda.py")
    done = subprocess.run([PYTHON, program, tmp_path], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    expected = found["crops"].reshape(len(found["crops"]), -1).sum(1, dtype=np.float64)
    np.testing.assert_array_equal(found["logits"][:, 0], expected)
    assert found["batches"].tolist() == [8, 16, 32, 48, 8, 16, 48, 8]  # each size once at first, then as requests came
    assert (tmp_path / "compiled" / "kernels").read_bytes() == b"kernels"
