"""`forms/<form>/form.json`: a compiled form of a release, beside the release it was made from.

A release never changes; what a backend compiles from its ONNX files is no part of it and can be made again. A form says
which ONNX files it was made of, and is served only with those. Three forms have no files, for the backend compiles the
ONNX itself when it loads: `openvino-fp32`, `onnxruntime-fp32` and `torch-fp16`.
"""

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.atomic import AlreadyThere, whole_folder
from services.documents import read_model
from services.errors import ConfigurationError
from services.releases.schema import FORMS, MEMBERS, FileDigest, RelativePath, Release, Sha256, digest
from triton_models.forms.compact import PARTS, PartsBroken, parts_of, put_together

FORM_DOCUMENT: Final = "form.json"
OPENVINO_INT8: Final = "openvino-int8"
TENSORRT_RTX: Final = "tensorrt-rtx-fp16"
Backend = Literal["embedded", "openvino", "onnxruntime", "tensorrt"]
OPENVINO_FP32: Final = "openvino-fp32"
TORCH: Final = "torch-fp16"
WITHOUT_FILES: Final[dict[Backend, tuple[str, ...]]] = {
    "embedded": (OPENVINO_FP32, TORCH),
    "openvino": (OPENVINO_FP32,),
    "onnxruntime": ("onnxruntime-fp32",),
    "tensorrt": (),
}
"""By backend; the first is what it runs if no form is named."""
_X86_64: Final = ("x86_64", "amd64")
_SERVED_BY: Final[dict[str, tuple[Backend, ...]]] = {
    OPENVINO_INT8: ("embedded", "openvino"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("embedded",),
}


class FormBroken(ConfigurationError):
    """A compiled form is not of this release, or not what its document says; it is not served."""

    reason = "form_broken"


class FormMissing(ConfigurationError):
    """A release has no such compiled form, or the backend cannot run it."""

    reason = "form_missing"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(_Part):
    """The batches that a form was compiled for: least, the one it is tuned to, and most."""

    least: int = Field(ge=1)
    best: int = Field(ge=1)
    most: int = Field(ge=1)


class Form(_Part):
    """The document `form.json`. Paths are within the form's folder."""

    format: Literal["morphbatch.form/1"] = "morphbatch.form/1"
    form: str = Field(pattern=r"^[0-9a-z][0-9a-z._-]{2,100}$")
    target: Literal["openvino-int8", "tensorrt", "tensorrt-rtx"]
    precision: Literal["int8", "fp16"]
    created: datetime
    release_id: str
    classes: tuple[str, ...]
    crop_px: int
    onnx: dict[str, Sha256] = Field(description="SHA-256 of each member's ONNX file that it was compiled from.")
    tool: str = Field(description="The tool that compiled it.")
    versions: dict[str, str] = Field(description="Of the tool and what it depends on.")
    profile: Profile | None = Field(default=None, description="Null: any batch size.")
    machine: dict[str, str] = Field(default_factory=dict, description="The machine it is bound to; empty: any.")
    members: dict[str, RelativePath] = Field(description="The file that a backend opens, `<member>/<name>`.")
    files: dict[RelativePath, FileDigest]
    measured: dict[str, Any] = Field(description="Accuracy control and verification, when it was made.")

    @model_validator(mode="after")
    def _agree_with_itself(self) -> Self:
        for what, names in (("members", self.members), ("onnx", self.onnx)):
            if set(names) != set(MEMBERS):
                raise ValueError(f"{what} must be {', '.join(MEMBERS)}, not {', '.join(names)}")
        missing = set(self.members.values()) - set(self.files)
        if missing:
            raise ValueError(f"files does not list {', '.join(sorted(missing))}")
        return self

    def files_of(self, member: str) -> tuple[str, ...]:
        """The files that belong into the member's version folder, by their path in the form's folder."""
        return tuple(name for name in self.files if name.startswith(f"{member}/"))


@dataclass(frozen=True, slots=True)
class ServedForm:
    """A form as a backend runs it. `document` None: it has no files, for the backend compiles the ONNX itself."""

    name: str
    document: Form | None = None


def form_folder(release_dir: Path, name: str) -> Path:
    """Where the form `name` of the release in `release_dir` stands."""
    return release_dir / FORMS / name


def forms_of(release_dir: Path) -> tuple[str, ...]:
    """The names of the compiled forms in `release_dir`, sorted."""
    return tuple(sorted(path.parent.name for path in (release_dir / FORMS).glob(f"*/{FORM_DOCUMENT}")))


def read_form(release_dir: Path, release: Release, name: str) -> Form:
    """The form `name` of `release` in `release_dir`, after every byte of it was checked.

    Raises:
        FormMissing: there is none; the message names those there are.
        FormBroken: it is of another release, class order or input, or a file is missing, altered or too many; the
            message names every fault and what to do.
    """
    folder = form_folder(release_dir, name)
    if not (folder / FORM_DOCUMENT).exists():
        raise FormMissing(
            f"release {release.id} in {release_dir} has no form {name}; it has"
            f" {', '.join(forms_of(release_dir)) or 'none'}. `morphbatch release compile` creates one"
        )
    form = read_model(folder / FORM_DOCUMENT, Form, FormBroken)
    faults = _disagreements(form, release, name)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {FORM_DOCUMENT}
    belonging = {*form.files, *(f"{path}{PARTS}" for path in form.files)}
    faults += [f"{path} does not belong to the form" for path in sorted(present - belonging)]
    for path, expected in form.files.items():
        if path not in present and f"{path}{PARTS}" not in present:
            faults.append(f"{path} is missing")
        elif _digest(release_dir, release, folder / path) != expected:
            faults.append(f"{path} is altered")
    if faults:
        raise FormBroken(
            f"form {name} of release {release.id} in {folder}: {'; '.join(faults)}. Remove the folder and compile again"
        )
    return form


def _digest(release_dir: Path, release: Release, path: Path) -> FileDigest | None:
    """Of a file of a form, whole or put together; None: it cannot be put together."""
    if path.exists():
        return digest(path)
    try:
        content = _put_together(release_dir, release, path)
    except PartsBroken:
        return None
    return FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _put_together(release_dir: Path, release: Release, path: Path) -> bytes:
    return put_together(parts_of(path), release_dir / release.members[path.parent.name].onnx)


def place_files(release_dir: Path, release: Release, form: Form, member: str, out: Path) -> None:
    """Put the files of `member` into the folder `out`, whole, as a backend opens them.

    Raises:
        PartsBroken: see `put_together`; not where `read_form` has read the form.
    """
    for name in form.files_of(member):
        path = form_folder(release_dir, form.form) / name
        if path.exists():
            link(path, out / path.name)
        else:
            (out / path.name).write_bytes(_put_together(release_dir, release, path))


def link(source: Path, target: Path) -> None:
    """Have the file `source` as `target` too. Neither is ever written again, so they may share their bytes."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _disagreements(form: Form, release: Release, name: str) -> list[str]:
    faults = []
    if form.form != name:
        faults.append(f"its document names it {form.form}")
    if form.release_id != release.id:
        faults.append(f"it is of release {form.release_id}")
    if form.classes != release.classes:
        faults.append(f"its classes are {', '.join(form.classes)}, the release's {', '.join(release.classes)}")
    if form.crop_px != release.crop_px:
        faults.append(f"it takes crops of {form.crop_px} px, the release has {release.crop_px}")
    faults += [
        f"it was compiled from another {member} (ONNX sha256 {form.onnx[member][:12]}, the release's {found[:12]})"
        for member, found in onnx_hashes(release).items()
        if form.onnx[member] != found
    ]
    return faults


def onnx_hashes(release: Release) -> dict[str, str]:
    """SHA-256 of each member's ONNX file, as the release's document has it."""
    return {member: release.files[release.members[member].onnx].sha256 for member in MEMBERS}


def form_served(release_dir: Path, release: Release, backend: Backend, name: str | None) -> ServedForm:
    """The form `name` for `backend`.

    Args:
        release_dir: folder of `release`.
        release: its document.
        backend: what is to run it.
        name: by default the backend's first form without files.

    Raises:
        FormMissing: there is no such form, or the backend cannot run it.
        FormBroken: see `read_form`.
    """
    if name is None:
        if not WITHOUT_FILES[backend]:
            raise FormMissing(f"backend {backend} runs compiled forms only: name one of {release_dir / FORMS}")
        return ServedForm(WITHOUT_FILES[backend][0])
    if name in WITHOUT_FILES[backend]:
        return ServedForm(name)
    if any(name in names for names in WITHOUT_FILES.values()):
        raise FormMissing(f"backend {backend} cannot run the form {name}")
    form = read_form(release_dir, release, name)
    if backend not in _SERVED_BY[form.target]:
        raise FormMissing(f"backend {backend} cannot run the form {name}; {', '.join(_SERVED_BY[form.target])} can")
    return ServedForm(name, form)


def best_form(release_dir: Path) -> str:
    """The form in which the embedded backend serves the release in `release_dir` on this machine's CPU.

    int8 where the release carries it, for then it is proven, on x86-64: that is where it was measured.
    """
    proven = OPENVINO_INT8 in forms_of(release_dir)
    return OPENVINO_INT8 if proven and platform.machine().lower() in _X86_64 else OPENVINO_FP32


@contextmanager
def new_form(release_dir: Path, name: str, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write the form `name` into; it becomes the form's folder only if the block ends well.

    Raises:
        AlreadyThere: the form exists, and `replace` is not set.
    """
    folder = form_folder(release_dir, name)
    if folder.exists() and not replace:
        raise AlreadyThere(f"{folder} exists; --replace compiles it again")
    with whole_folder(folder, replace=True) as draft:
        yield draft


def digests(folder: Path) -> dict[str, FileDigest]:
    """Size and checksum of every file in `folder`, by its path there."""
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def write_form(folder: Path, form: Form) -> Form:
    """Write `form` as the document of the form's `folder`."""
    (folder / FORM_DOCUMENT).write_text(form.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return form
