"""Lay a release out as a Triton model repository.

The embedded server is the `tritonserver` binary of the nvidia-pytriton wheel, in an environment of its own
(`requirements/triton.txt`); `services/local/triton.py` starts it. The stub of its Python backend finds packages as
an activated environment does, by the `python3` that PATH names first; it ignores PYTHONPATH.
"""

import hashlib
import json
from pathlib import Path

from services.atomic import AlreadyThere, whole_folder
from services.releases.schema import MEMBERS, Release, verify_release
from services.releases.served import ensemble_version
from triton_models.forms.form import Backend, Form, ServedForm, form_served, link, place_files
from triton_models.layout.model_configs import (
    DEFAULT_FORM,
    ENSEMBLE,
    FUSION,
    EmbeddedOptions,
    Serving,
    ensemble_config,
    fusion_config,
    member_config,
)

SOURCES = Path(__file__).parent.parent / "repository"
_MARK = ".laid-out"  # holds the fingerprint of all that is laid out


def render_repository(
    release: Release,
    backend: Backend = "embedded",
    options: EmbeddedOptions | None = None,
    form: ServedForm = DEFAULT_FORM,
) -> dict[str, str]:
    """Every text file of the repository, by its path in it: configurations, Python models, the fusion."""
    options = options or EmbeddedOptions()
    serving = Serving(release, backend, form)
    files = {}
    for member in MEMBERS:
        files[f"{member}/config.pbtxt"] = member_config(serving, member, options)
        if backend == "embedded":
            files |= _python_model(member, _programs(serving))
    files[f"{FUSION}/config.pbtxt"] = fusion_config(serving, options)
    files |= _python_model(FUSION, {"model.py": f"{FUSION}/model.py"})
    fusion = {**release.fusion.model_dump(exclude={"calibration"}), "classes": release.classes}
    files[f"{FUSION}/1/fusion.json"] = json.dumps(fusion, indent=2, sort_keys=True) + "\n"  # jsonb keeps no order
    files[f"{ENSEMBLE}/config.pbtxt"] = ensemble_config(serving)
    # An object store keeps no empty folder, and Triton wants this one.
    files[f"{ENSEMBLE}/{ensemble_version(release.id)}/placeholder"] = "an ensemble has no file of its own\n"
    return files


def _programs(serving: Serving) -> dict[str, str]:
    """The files of the embedded backend that run a network, by what the server finds them under."""
    if serving.gpu_program is None:
        return {"model.py": "embedded_network/model.py"}
    return {"model.py": "gpu_network/model.py", "network.py": f"gpu_network/{serving.gpu_program}.py"}


def _python_model(name: str, programs: dict[str, str]) -> dict[str, str]:
    """The files of a Python model: its own, and how it reads and answers."""
    files = {**programs, "tensors.py": "tensors.py"}
    return {f"{name}/1/{file}": (SOURCES / source).read_text(encoding="utf-8") for file, source in files.items()}


def is_laid_out(
    release: Release,
    repository_dir: Path,
    options: EmbeddedOptions | None = None,
    form: ServedForm = DEFAULT_FORM,
) -> bool:
    """Whether `repository_dir` is what `lay_out_repository` of this version makes of `release`, embedded."""
    try:
        mark = (repository_dir / _MARK).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return mark == _fingerprint(release, render_repository(release, options=options, form=form), form.document)


def lay_out_repository(
    release_dir: Path,
    repository_dir: Path,
    backend: Backend = "embedded",
    options: EmbeddedOptions | None = None,
    form: str | None = None,
) -> Release:
    """Write the four models of the release in `release_dir` as the repository `repository_dir`, replacing it whole.

    `form` names a form of the release; None: that in which the backend compiles the ONNX files itself.

    Raises:
        AlreadyThere: `repository_dir` holds something else than such a repository.
        ReleaseBroken: the release folder is not what its document says.
        FormMissing, FormBroken: the form is not there, not for this backend, or not of this release.
    """
    if repository_dir.exists() and not _is_ours(repository_dir):
        raise AlreadyThere(
            f"{repository_dir} holds something other than a model repository: choose another folder, or remove it"
        )
    release = verify_release(release_dir)
    served = form_served(release_dir, release, backend, form)
    compiled = served.document
    rendered = render_repository(release, backend, options, served)
    with whole_folder(repository_dir, replace=True) as draft:
        for name, content in rendered.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(content, encoding="utf-8")
        for member in MEMBERS:
            version = draft / member / "1"
            version.mkdir(exist_ok=True)
            if compiled is None:
                onnx = release_dir / release.members[member].onnx
                link(onnx, version / onnx.name)
            else:
                place_files(release_dir, release, compiled, member, version)
        (draft / _MARK).write_text(_fingerprint(release, rendered, compiled), encoding="utf-8")
    return release


def declare_altered(repository_dir: Path) -> None:
    """Have `repository_dir` laid out again before it is served the next time, since files in it were exchanged."""
    (repository_dir / _MARK).write_text("", encoding="utf-8")


def _is_ours(folder: Path) -> bool:
    """Whether `folder` may be replaced: it is empty, or was laid out before."""
    return folder.is_dir() and ((folder / _MARK).is_file() or not any(folder.iterdir()))


def _fingerprint(release: Release, rendered: dict[str, str], form: Form | None) -> str:
    compiled = {} if form is None else form.files
    content = {**rendered, **{name: file.sha256 for name, file in (*release.files.items(), *compiled.items())}}
    return f"{release.id} {hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}\n"
