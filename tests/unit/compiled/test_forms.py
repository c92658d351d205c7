"""Compiled forms: what is one of a release, what is refused, and what each backend of Triton is told."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.releases.schema import MEMBERS, Release, ReleaseBroken, verify_release
from services.taxonomy import CLASS_NAMES
from tests.small_release import CROP_PX, build_small_release
from triton_models.forms.difference import difference, fault
from triton_models.forms.form import (
    FORM_DOCUMENT,
    OPENVINO_INT8,
    TORCH,
    Backend,
    Form,
    FormBroken,
    FormMissing,
    Profile,
    ServedForm,
    digests,
    form_folder,
    form_served,
    forms_of,
    new_form,
    onnx_hashes,
    read_form,
    write_form,
)
from triton_models.layout.model_configs import MODELS, EmbeddedOptions
from triton_models.layout.repository import is_laid_out, lay_out_repository

TENSORRT = "tensorrt-fp16-11.2.1-nvidia-h100"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small release with an int8 form and a TensorRT form, whose files hold their own names."""
    folder = tmp_path_factory.mktemp("releases") / "small"
    release = build_small_release(folder)
    add_form(folder, release, OPENVINO_INT8, {m: (f"{m}/model.xml", f"{m}/model.bin") for m in MEMBERS})
    add_form(folder, release, TENSORRT, {m: (f"{m}/abc-trt11.2.1-sm90-def.plan",) for m in MEMBERS})
    return folder


@pytest.fixture
def release_dir(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    return Path(shutil.copytree(made, tmp_path / "release"))


def add_form(folder: Path, release: Release, name: str, files: dict[str, tuple[str, ...]]) -> Form:
    tensorrt = name.startswith("tensorrt")
    with new_form(folder, name) as out:
        for path in (path for paths in files.values() for path in paths):
            (out / path).parent.mkdir(exist_ok=True)
            (out / path).write_text(path)
        return write_form(
            out,
            Form(
                form=name,
                target="tensorrt" if tensorrt else "openvino-int8",
                precision="fp16" if tensorrt else "int8",
                created=datetime.now(UTC),
                release_id=release.id,
                classes=release.classes,
                crop_px=release.crop_px,
                onnx=onnx_hashes(release),
                tool="a test",
                versions={},
                profile=Profile(least=1, best=16, most=48) if tensorrt else None,
                machine={"compute_capability": "9.0"} if tensorrt else {},
                members={member: paths[0] for member, paths in files.items()},
                files=digests(out),
                measured={},
            ),
        )


def test_forms_are_no_part_of_the_release(release_dir: Path) -> None:
    before = verify_release(release_dir)
    assert forms_of(release_dir) == (OPENVINO_INT8, TENSORRT)
    assert read_form(release_dir, before, OPENVINO_INT8).files_of(MEMBERS[0]) == (
        f"{MEMBERS[0]}/model.bin",
        f"{MEMBERS[0]}/model.xml",
    )
    shutil.rmtree(release_dir / "forms")
    assert verify_release(release_dir) == before
    (release_dir / "form").mkdir()
    (release_dir / "form" / "x").touch()
    with pytest.raises(ReleaseBroken, match="form/x does not belong to the release"):
        verify_release(release_dir)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"release_id": "another-release"}, "it is of release another-release"),
        ({"crop_px": 64}, "takes crops of 64 px, the release has 32"),
        ({"classes": [CLASS_NAMES[1], CLASS_NAMES[0], *CLASS_NAMES[2:]]}, "classes are AsymmetricNeck, AmorfHead"),
        ({"onnx": {MEMBERS[0]: "0" * 64, MEMBERS[1]: "0" * 64}}, "compiled from another resnetv2_50"),
        ({"form": "other-int8"}, "its document names it other-int8"),
        ({"members": {MEMBERS[0]: "x/model.xml"}}, "members must be"),
        ({"files": {}}, "files does not list"),
        ({"precision": "int4"}, "precision"),
    ],
)
def test_a_form_of_something_else_is_refused(release_dir: Path, changes: dict[str, object], named: str) -> None:
    release = verify_release(release_dir)
    path = form_folder(release_dir, OPENVINO_INT8) / FORM_DOCUMENT
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(FormBroken, match=named):
        read_form(release_dir, release, OPENVINO_INT8)
    with pytest.raises(FormBroken, match=named):
        lay_out_repository(release_dir, release_dir.parent / "repository", form=OPENVINO_INT8)
    assert not (release_dir.parent / "repository").exists()


def test_every_fault_of_a_forms_files_is_named(release_dir: Path) -> None:
    folder = form_folder(release_dir, OPENVINO_INT8)
    (folder / MEMBERS[0] / "model.bin").write_text("other")
    (folder / MEMBERS[1] / "model.xml").unlink()
    (folder / "extra").touch()
    with pytest.raises(FormBroken) as caught:
        read_form(release_dir, verify_release(release_dir), OPENVINO_INT8)
    for named in (
        f"{MEMBERS[0]}/model.bin is altered",
        f"{MEMBERS[1]}/model.xml is missing",
        "extra does not belong",
        "compile again",
    ):
        assert named in str(caught.value)


def test_a_form_that_is_not_there_says_which_are(release_dir: Path) -> None:
    release = verify_release(release_dir)
    with pytest.raises(FormMissing, match=f"it has {OPENVINO_INT8}, {TENSORRT}"):
        read_form(release_dir, release, "openvino-int4")
    for backend, name, served in (
        ("embedded", None, "openvino-fp32"),
        ("embedded", "openvino-fp32", "openvino-fp32"),
        ("embedded", TORCH, TORCH),
        ("onnxruntime", None, "onnxruntime-fp32"),
    ):
        assert form_served(release_dir, release, backend, name) == ServedForm(served)  # type: ignore[arg-type]
    for backend, name, named in (
        ("onnxruntime", OPENVINO_INT8, "embedded, openvino can"),
        ("onnxruntime", "openvino-fp32", "cannot run"),
        ("embedded", TENSORRT, "tensorrt can"),
        ("tensorrt", None, "name one of"),
        ("tensorrt", "openvino-fp32", "cannot run"),
        ("openvino", TORCH, "cannot run"),
    ):
        with pytest.raises(FormMissing, match=named):
            form_served(release_dir, release, backend, name)  # type: ignore[arg-type]


def test_a_form_is_there_whole_or_not_at_all(release_dir: Path) -> None:
    def breaks_off() -> None:
        with new_form(release_dir, "tried") as out:
            (out / "half").touch()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        breaks_off()
    assert [path.name for path in (release_dir / "forms").iterdir() if "tried" in path.name] == []
    with pytest.raises(FileExistsError, match="--replace"), new_form(release_dir, OPENVINO_INT8):
        pass
    with new_form(release_dir, OPENVINO_INT8, replace=True) as out:
        (out / "new").touch()
    assert [path.name for path in form_folder(release_dir, OPENVINO_INT8).iterdir()] == ["new"]


def parsed(repository: Path) -> dict[str, model_config_pb2.ModelConfig]:
    return {
        name: text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        for name in MODELS
    }


def parameters(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


SERVED = [
    ("embedded", None, "openvino-fp32", "model.onnx", 64),
    ("embedded", OPENVINO_INT8, OPENVINO_INT8, "model.xml", 64),
    ("embedded", TORCH, TORCH, "model.onnx", 256),
    ("openvino", None, "openvino-fp32", "model.onnx", 64),
    ("openvino", OPENVINO_INT8, OPENVINO_INT8, "model.xml", 64),
    ("onnxruntime", None, "onnxruntime-fp32", "model.onnx", 64),
    ("tensorrt", TENSORRT, TENSORRT, "abc-trt11.2.1-sm90-def.plan", 48),
]


@pytest.mark.parametrize(("backend", "form", "said", "file", "most"), SERVED)
def test_each_backend_gets_a_repository_that_triton_reads(
    release_dir: Path, tmp_path: Path, backend: Backend, form: str | None, said: str, file: str, most: int
) -> None:
    repository = tmp_path / "repository"
    release = lay_out_repository(release_dir, repository, backend, form=form)
    configs = parsed(repository)
    for name, config in configs.items():
        assert config.name == name
        assert config.max_batch_size == most
        assert parameters(config)["form"] == said
        assert parameters(config)["release_id"] == release.id
    assert configs["sperm_morphology"].platform == "ensemble"
    assert configs["logit_fusion"].backend == "python"
    for member in MEMBERS:
        config = configs[member]
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
            ("CROPS", model_config_pb2.TYPE_UINT8, [CROP_PX, CROP_PX, 3])
        ]
        assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
            ("LOGITS", model_config_pb2.TYPE_FP32, [18])
        ]
        assert config.HasField("dynamic_batching")
        assert not config.response_cache.enable
        assert config.model_warmup[0].batch_size == EmbeddedOptions().sub_batch
        assert config.backend == {"embedded": "python"}.get(backend, backend)
        assert (repository / member / "1" / file).exists()
        if form not in (None, TORCH):
            compiled = read_form(release_dir, release, form)
            present = {f"{member}/{path.name}" for path in (repository / member / "1").iterdir()}
            assert present - {f"{member}/model.py", f"{member}/tensors.py"} == set(compiled.files_of(member))


def test_what_only_one_backend_is_told(release_dir: Path, tmp_path: Path) -> None:
    configs = {}
    for backend, form, _, _, _ in SERVED:
        lay_out_repository(release_dir, tmp_path / "repository", backend, form=form)
        configs[backend, form] = parsed(tmp_path / "repository")[MEMBERS[0]]

    embedded = configs["embedded", OPENVINO_INT8]
    assert parameters(embedded)["model_file"] == "model.xml"
    assert embedded.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU

    torch = configs["embedded", TORCH]
    assert parameters(torch)["model_file"] == "model.onnx"
    assert torch.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU

    openvino = configs["openvino", OPENVINO_INT8]
    assert openvino.default_model_filename == "model.xml"
    assert parameters(openvino).items() >= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "AUTO"}.items()

    onnxruntime = configs["onnxruntime", None]
    assert onnxruntime.default_model_filename == "model.onnx"
    # Triton would start two on a CPU, each with a thread a core.
    assert [(group.count, group.kind) for group in onnxruntime.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    ]

    tensorrt = configs["tensorrt", TENSORRT]
    # Without a default name a GPU of another compute capability finds no plan and loads none.
    assert dict(tensorrt.cc_model_filenames) == {"9.0": "abc-trt11.2.1-sm90-def.plan"}
    assert not tensorrt.default_model_filename
    assert tensorrt.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert tensorrt.optimization.cuda.graphs


def test_another_form_is_another_repository(release_dir: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    release = lay_out_repository(release_dir, repository, form=OPENVINO_INT8)
    form = read_form(release_dir, release, OPENVINO_INT8)
    assert is_laid_out(release, repository, form=ServedForm(OPENVINO_INT8, form))
    assert not is_laid_out(release, repository)
    remade = form.model_copy(
        update={"files": {**form.files, f"{MEMBERS[0]}/model.bin": form.files[f"{MEMBERS[0]}/model.xml"]}}
    )
    assert not is_laid_out(release, repository, form=ServedForm(OPENVINO_INT8, remade))


Away = Callable[[float, float], dict[str, dict[str, float]]]


@pytest.fixture
def away() -> Away:
    """Differences of both members and fused: each the largest of a logit, and the share of one class."""

    def of(largest: float, same: float) -> dict[str, dict[str, float]]:
        found = {"mean_abs": largest / 9, "max_abs": largest, "same_class": same}
        return {name: dict(found) for name in (*MEMBERS, "fused")}

    return of


@pytest.mark.parametrize(
    ("precision", "largest", "same", "named"),
    [
        ("fp32", 9e-4, 1.0, None),
        ("fp32", 2e-3, 1.0, "logits differ by 0.002"),
        ("int8", 3.0, 0.98, None),
        ("int8", 0.1, 0.979, "0.9790 of the crops keep their class"),
        ("fp16", 0.1, 0.985, "not 0.99"),
        ("int8", float("nan"), 1.0, "not finite"),
    ],
)
def test_how_far_a_form_may_be_off(precision: str, largest: float, same: float, named: str | None, away: Away) -> None:
    found = fault(precision, away(largest, same))
    assert found is None if named is None else named in str(found)


def test_a_difference_is_of_logits_and_of_classes() -> None:
    first = np.float32([[1, 2, 3], [3, 2, 1]])
    assert difference(first, np.float32([[1, 2, 2.5], [3, 4, 1]])) == {
        "mean_abs": 2.5 / 6,
        "max_abs": 2.0,
        "same_class": 0.5,
    }
