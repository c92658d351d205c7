"""A form's large file, kept without what the release's ONNX file holds already."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from services.releases.schema import MEMBERS, FileDigest, Release, verify_release
from tests.small_release import build_small_release
from tests.unit.compiled.test_forms import add_form
from triton_models.forms import form as forms
from triton_models.forms.compact import make_compact, parts_of, put_together
from triton_models.forms.form import (
    OPENVINO_FP32,
    OPENVINO_INT8,
    FormBroken,
    best_form,
    form_folder,
    read_form,
    write_form,
)
from triton_models.layout.repository import lay_out_repository
from triton_models.layout.served_here import SHIPPED

CODES = [np.random.default_rng(k).integers(0, 256, 5000 + k, np.uint8).tobytes() for k in range(3)]
ROWS = [[codes[at : at + 500] for at in range(0, len(codes), 500)] for codes in CODES]
OTHER = CODES[1][:700] + b"rounded otherwise" + CODES[1][717:]
WHOLE = b"scales" + CODES[2] + b"bias" + CODES[0] + CODES[0] + OTHER + b"end"


@pytest.fixture
def compact(tmp_path: Path) -> tuple[Path, Release]:
    """A release whose ONNX files end with codes, and an int8 form of it whose `model.bin` has them in another order."""
    folder = tmp_path / "release"
    release = build_small_release(folder)
    files = {}
    for member in MEMBERS:
        onnx = folder / release.members[member].onnx
        content = onnx.read_bytes() + b"".join(CODES)
        onnx.write_bytes(content)
        files[release.members[member].onnx] = FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    release = release.model_copy(update={"files": {**release.files, **files}})
    release.write(folder)
    form = add_form(folder, release, OPENVINO_INT8, {m: (f"{m}/model.xml", f"{m}/model.bin") for m in MEMBERS})
    digest = FileDigest(sha256=hashlib.sha256(WHOLE).hexdigest(), size=len(WHOLE))
    whole = {name: digest if name.endswith(".bin") else file for name, file in form.files.items()}
    write_form(form_folder(folder, OPENVINO_INT8), form.model_copy(update={"files": whole}))
    for member in MEMBERS:
        path = form_folder(folder, OPENVINO_INT8) / member / "model.bin"
        path.write_bytes(WHOLE)
        make_compact(path, folder / release.members[member].onnx, ROWS)
        assert not path.exists()
    return folder, release


def test_what_the_onnx_file_holds_is_not_kept_twice(compact: tuple[Path, Release]) -> None:
    folder, release = compact
    parts = parts_of(form_folder(folder, OPENVINO_INT8) / MEMBERS[0] / "model.bin")
    assert put_together(parts, folder / release.members[MEMBERS[0]].onnx) == WHOLE
    with np.load(parts) as kept:
        # Each stretch of the ONNX file is looked for once; of another, the row that differs is kept.
        assert kept["rest"].tobytes() == b"scales" + b"bias" + CODES[0] + OTHER[500:1000] + b"end"


def test_the_server_is_given_the_whole_file(compact: tuple[Path, Release]) -> None:
    folder, release = compact
    assert verify_release(folder) == release
    read_form(folder, release, OPENVINO_INT8)
    repository = folder.parent / "repository"
    lay_out_repository(folder, repository, form=OPENVINO_INT8)
    for member in MEMBERS:
        assert (repository / member / "1" / "model.bin").read_bytes() == WHOLE
        assert not (repository / member / "1" / "model.bin.parts").exists()


@pytest.mark.parametrize("broken", [b"", b"no archive", None])
def test_damaged_parts_are_refused(compact: tuple[Path, Release], broken: bytes | None) -> None:
    folder, release = compact
    member = form_folder(folder, OPENVINO_INT8) / MEMBERS[0]
    if broken is None:
        (member / "model.bin").write_bytes(WHOLE.replace(b"bias", b"BIAS"))
        make_compact(member / "model.bin", folder / release.members[MEMBERS[0]].onnx, ROWS)
    else:
        parts_of(member / "model.bin").write_bytes(broken)
    with pytest.raises(FormBroken, match=f"{MEMBERS[0]}/model.bin is altered"):
        read_form(folder, release, OPENVINO_INT8)


def test_int8_is_served_where_the_release_carries_it(
    compact: tuple[Path, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = compact
    monkeypatch.setattr(forms.platform, "machine", lambda: "x86_64")
    assert best_form(folder) == OPENVINO_INT8
    monkeypatch.setattr(forms.platform, "machine", lambda: "aarch64")
    assert best_form(folder) == OPENVINO_FP32
    monkeypatch.setattr(forms.platform, "machine", lambda: "x86_64")
    (folder / "forms").rename(folder.parent / "elsewhere")
    assert best_form(folder) == OPENVINO_FP32


def test_the_shipped_release_carries_its_int8_form() -> None:
    form = read_form(SHIPPED, verify_release(SHIPPED), OPENVINO_INT8)
    assert form.measured["macro_f1"]["fused"]["change"] >= -form.measured["max_drop"]
    stored = sum(path.stat().st_size for path in form_folder(SHIPPED, OPENVINO_INT8).rglob("*") if path.is_file())
    assert stored < sum(file.size for file in form.files.values()) / 10, "the weights of the ONNX files are kept twice"
