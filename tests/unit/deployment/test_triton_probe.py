"""The probe of Triton's images: a model whose process was killed is noticed, though Triton says that it is ready."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.deployment.test_images import IMAGES


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, beside a repository of an ensemble and three models of the Python backend."""
    spec = importlib.util.spec_from_file_location("triton_probe", IMAGES / "triton_probe.py")
    assert spec
    assert spec.loader
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "REPOSITORY", tmp_path / "repository")
    for model in ("efficientnetv2_s", "resnetv2_50", "logit_fusion"):
        (tmp_path / "repository" / model / "1").mkdir(parents=True)
        (tmp_path / "repository" / model / "1" / "model.py").touch()
    (tmp_path / "repository" / "sperm_morphology" / "7").mkdir(parents=True)
    return program


def processes(folder: Path, *commands: bytes) -> Path:
    for number, command in enumerate(commands, start=1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "cmdline").write_bytes(command)
    (folder / "self").mkdir()
    return folder


def test_processes_of_the_backend_are_counted_by_their_program(probe: ModuleType, tmp_path: Path) -> None:
    stub = b"/opt/server/backends/python/triton_python_backend_stub\0/repository/x/1/model.py\0"
    proc = processes(tmp_path / "proc", stub, b"/opt/server/bin/tritonserver\0", b"", b"sh\0-c\0exec a_stub\0", stub)
    assert probe.stubs(proc) == 2


@pytest.mark.parametrize(("running", "said"), [(3, None), (2, "2 of 3 processes of the Python backend run")])
def test_one_process_too_few_is_told(
    probe: ModuleType, monkeypatch: pytest.MonkeyPatch, running: int, said: str | None
) -> None:
    monkeypatch.setattr(probe, "stubs", lambda: running)
    assert probe.trouble(ready=False) == said
