"""A repository whose networks answer a constant is laid out again before it is served the next time."""

from pathlib import Path

from services.benchmark.constant_model import write_constant_models
from services.releases.schema import MEMBERS
from tests.small_release import build_small_release
from triton_models.layout.repository import is_laid_out, lay_out_repository


def test_constant_networks_last_until_the_next_start(tmp_path: Path) -> None:
    release = build_small_release(tmp_path / "release")
    repository = tmp_path / "repository"
    for _ in range(2):
        lay_out_repository(tmp_path / "release", repository)
        assert is_laid_out(release, repository)
        assert (repository / MEMBERS[0] / "1" / "model.onnx").is_file()
        write_constant_models(repository)
        assert not is_laid_out(release, repository)
        assert not (repository / MEMBERS[0] / "1" / "model.onnx").exists()
