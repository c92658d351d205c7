"""Lay a release out as a Triton model repository.

The embedded server is the `tritonserver` binary of the nvidia-pytriton wheel, in an environment of its own (Python
3.11, `requirements/triton.txt`). With ENV that environment and SITE its site-packages, it starts as

    SITE/pytriton/tritonserver/bin/tritonserver
        --model-repository=REPOSITORY --backend-directory=BACKENDS
        --grpc-address=127.0.0.1 --grpc-port=P --http-address=127.0.0.1 --http-port=Q --metrics-port=R

where BACKENDS/python holds links to `libtriton_python.so` and `triton_python_backend_utils.py` of
SITE/pytriton/tritonserver/backends/python and to `triton_python_backend_stub` of
SITE/pytriton/tritonserver/python_backend_stubs/3.11, with

    LD_LIBRARY_PATH=SITE/nvidia_pytriton.libs:LIBDIR    LIBDIR: sysconfig.get_config_var("LIBDIR") of its Python
    PATH=ENV/bin:...

The stub finds its packages as an activated environment does, by the `python3` that PATH names first; it ignores
PYTHONPATH.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Literal

from triton_models.release.model_configs import (
    ENSEMBLE,
    FUSION,
    EmbeddedOptions,
    ensemble_config,
    fusion_config,
    member_config,
)
from triton_models.release.schema import MEMBERS, Release, verify_release

SOURCES = Path(__file__).parent.parent / "repository"


def _link(source: Path, target: Path) -> None:
    """Both are never written again, so they may share the bytes."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def laid_out_release(repository_dir: Path) -> str | None:
    """The id of the release laid out in `repository_dir`; None: there is none."""
    try:
        return (repository_dir / ".release").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def lay_out_repository(
    release_dir: Path,
    repository_dir: Path,
    backend: Literal["embedded"] = "embedded",
    options: EmbeddedOptions | None = None,
) -> Release:
    """Write the four models of the release in `release_dir` as the repository `repository_dir`, replacing it whole.

    Raises:
        ReleaseBroken: the release folder is not what its document says.
    """
    release = verify_release(release_dir)
    options = options or EmbeddedOptions()
    partial = repository_dir.with_name(repository_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for member in MEMBERS:
        version = partial / member / "1"
        version.mkdir(parents=True)
        _link(release_dir / release.members[member].onnx, version / "model.onnx")
        shutil.copyfile(SOURCES / f"{backend}_network" / "model.py", version / "model.py")
        (partial / member / "config.pbtxt").write_text(member_config(release, member, options), encoding="utf-8")

    version = partial / FUSION / "1"
    version.mkdir(parents=True)
    shutil.copyfile(SOURCES / FUSION / "model.py", version / "model.py")
    fusion = {**release.fusion.model_dump(), "classes": release.classes}
    (version / "fusion.json").write_text(json.dumps(fusion, indent=2) + "\n", encoding="utf-8")
    (partial / FUSION / "config.pbtxt").write_text(fusion_config(release, options), encoding="utf-8")

    version = partial / ENSEMBLE / "1"
    version.mkdir(parents=True)
    (version / ".keep").write_text("An object store keeps no empty folder, and Triton wants this one.\n")
    (partial / ENSEMBLE / "config.pbtxt").write_text(ensemble_config(release), encoding="utf-8")
    (partial / ".release").write_text(release.id + "\n", encoding="utf-8")

    old = repository_dir.with_name(repository_dir.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if repository_dir.exists():
        repository_dir.rename(old)
    partial.rename(repository_dir)
    shutil.rmtree(old, ignore_errors=True)
    return release
