"""The release format, the untrained release, and the Triton repository made from it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx.numpy_helper import to_array
from tritonclient.grpc import model_config_pb2

from services.releases.schema import (
    DOCUMENT,
    MEMBERS,
    Release,
    ReleaseBroken,
    ReleaseKind,
    read_release,
    verify_release,
)
from services.taxonomy import CLASS_NAMES
from triton_models.layout.model_configs import MODELS, EmbeddedOptions
from triton_models.layout.repository import is_laid_out, lay_out_repository
from triton_models.layout.served_here import SHIPPED
from triton_models.untrained.grow import SKELETONS, Draw, build_untrained, draw_uniform


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained release, grown once."""
    folder = tmp_path_factory.mktemp("releases") / "untrained"
    build_untrained(folder)
    return folder


@pytest.fixture
def release_dir(tmp_path: Path, grown: Path) -> Path:
    """A release like the grown one, with small files, to break."""
    folder = tmp_path / "release"
    document = json.loads((grown / DOCUMENT).read_text())
    for name in document["files"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    from services.releases.schema import digest

    document["files"] = {name: digest(folder / name).model_dump() for name in document["files"]}
    (folder / DOCUMENT).write_text(json.dumps(document))
    verify_release(folder)
    return folder


def altered(folder: Path, **changes: object) -> None:
    document = json.loads((folder / DOCUMENT).read_text())
    (folder / DOCUMENT).write_text(json.dumps({**document, **changes}))


def test_the_untrained_release_is_whole_and_says_what_it_is(grown: Path) -> None:
    release = verify_release(grown)
    assert release.kind is ReleaseKind.UNTRAINED
    assert release.id.startswith("untrained-")
    assert release.classes == CLASS_NAMES
    assert (release.crop_px, release.crop_um) == (192, 24.0)
    assert Release.model_validate_json(json.dumps(release.document())) == release


def test_untrained_weights_are_the_same_bytes_everywhere(grown: Path) -> None:
    # A change here changes the untrained release: every installation would get a second one.
    assert read_release(grown).id == "untrained-ebc9ce93ffd0"
    np.testing.assert_array_equal(
        draw_uniform(Draw(seed=1, bound=1.0), (3,)),
        np.float32([-0.05362272262573242, 0.023643136024475098, 0.5103349685668945]),
    )


def test_drawn_weights_fill_their_bound() -> None:
    values = draw_uniform(Draw(seed=5, bound=0.25), (40, 50))
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 0.25
    assert abs(float(values.mean())) < 0.01
    assert float(values.std()) == pytest.approx(0.25 / 3**0.5, rel=0.03)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_network_takes_uint8_into_one_cast_and_gives_logits(grown: Path, member: str) -> None:
    model = onnx.load(grown / member / "model.onnx")
    onnx.checker.check_model(model)
    assert [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input] == [("CROPS", onnx.TensorProto.UINT8)]
    assert [(o.name, o.type.tensor_type.elem_type) for o in model.graph.output] == [("LOGITS", onnx.TensorProto.FLOAT)]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim][1:] == [len(CLASS_NAMES)]
    # TensorRT takes UINT8 as network input only, and only into a Cast.
    assert model.graph.node[0].op_type == "Cast"
    assert [node.op_type for node in model.graph.node if "CROPS" in node.input] == ["Cast"]
    weights = [to_array(tensor) for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert sum(w.size for w in weights) > 20e6
    assert all(np.isfinite(w).all() for w in weights)


@pytest.mark.parametrize("member", MEMBERS)
def test_skeletons_are_small_and_name_no_machine(member: str) -> None:
    import gzip

    packed = SKELETONS / f"{member}.onnx.gz"
    assert packed.stat().st_size < 300_000
    graph = gzip.decompress(packed.read_bytes())
    assert not any(word in graph for word in (b"/home", b"/root", b"/work", b".py"))


def test_a_release_is_never_built_over_another(release_dir: Path) -> None:
    with pytest.raises(FileExistsError):
        build_untrained(release_dir)


def test_verification_names_every_fault(release_dir: Path) -> None:
    (release_dir / MEMBERS[0] / "model.onnx").write_bytes(b"other")
    (release_dir / MEMBERS[1] / "model.onnx").unlink()
    (release_dir / "extra.onnx").touch()
    with pytest.raises(ReleaseBroken) as caught:
        verify_release(release_dir)
    message = str(caught.value)
    assert f"{MEMBERS[0]}/model.onnx is altered" in message
    assert f"{MEMBERS[1]}/model.onnx is missing" in message
    assert "extra.onnx does not belong" in message


def test_another_class_order_is_refused(release_dir: Path) -> None:
    altered(release_dir, classes=[CLASS_NAMES[1], CLASS_NAMES[0], *CLASS_NAMES[2:]])
    with pytest.raises(ReleaseBroken, match="classes are AsymmetricNeck, AmorfHead"):
        verify_release(release_dir)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"kind": "wonderful"}, "kind"),
        ({"id": "../escape"}, "id"),
        ({"fusion": {"alpha": 1.5, "temperatures": dict.fromkeys(MEMBERS, 1.0)}}, "fusion.alpha"),
        (
            {"fusion": {"alpha": [0.5] * 17 + [1.5], "temperatures": dict.fromkeys(MEMBERS, 1.0)}},
            r"in 0\.\.1, not 1\.5",
        ),
        ({"fusion": {"alpha": [0.5] * 17, "temperatures": dict.fromkeys(MEMBERS, 1.0)}}, "fusion.alpha has 17 numbers"),
        ({"fusion": {"alpha": 0.5, "temperatures": {MEMBERS[0]: 1.0}}}, "fusion.temperatures must be"),
        ({"members": {MEMBERS[0]: {"onnx": "x/model.onnx"}}}, "members must be"),
        ({"files": {}}, "files does not list"),
        ({"files": {"../../escape": {"sha256": "0" * 64, "size": 1}}}, "files"),
    ],
)
def test_a_malformed_document_is_refused(release_dir: Path, changes: dict[str, object], named: str) -> None:
    altered(release_dir, **changes)
    with pytest.raises(ReleaseBroken, match=named):
        read_release(release_dir)


def test_a_folder_without_a_document_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseBroken, match=r"holds no release\.json"):
        read_release(tmp_path)


def test_the_repository_is_what_triton_reads(release_dir: Path, tmp_path: Path) -> None:
    release = lay_out_repository(release_dir, tmp_path / "repository")
    configs = {
        name: text_format.Parse(
            (tmp_path / "repository" / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        for name in MODELS
    }
    for name, config in configs.items():
        assert config.name == name
        assert config.max_batch_size == 64
        assert not config.response_cache.enable
        assert {key: value.string_value for key, value in config.parameters.items()}.items() >= {
            "release_id": release.id,
            "classes": ",".join(CLASS_NAMES),
            "crop_px": "192",
            "crop_um": "24.0",
        }.items()

    ensemble = configs["sperm_morphology"]
    assert not ensemble.instance_group
    assert [(i.name, i.data_type, list(i.dims)) for i in ensemble.input] == [
        ("CROPS", model_config_pb2.TYPE_UINT8, [192, 192, 3])
    ]
    assert [(o.name, list(o.dims)) for o in ensemble.output] == [
        ("PROBABILITIES", [18]),
        ("EFFICIENTNETV2_S_LOGITS", [18]),
        ("RESNETV2_50_LOGITS", [18]),
    ]
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == [*MEMBERS, "logit_fusion"]
    for member in MEMBERS:
        assert configs[member].HasField("dynamic_batching")
        # A refusal within the ensemble brings Triton 2.51 down.
        assert not configs[member].dynamic_batching.HasField("default_queue_policy")
        assert configs[member].model_warmup
        assert (tmp_path / "repository" / member / "1" / "model.onnx").read_bytes()

    fusion = json.loads((tmp_path / "repository" / "logit_fusion" / "1" / "fusion.json").read_text())
    assert (fusion["alpha"], tuple(fusion["classes"])) == (0.5, CLASS_NAMES)


def test_one_alpha_a_class_reaches_triton_as_it_stands_in_the_release(release_dir: Path, tmp_path: Path) -> None:
    by_class = [round(0.05 * number, 2) for number in range(18)]
    altered(release_dir, fusion={"alpha": by_class, "temperatures": dict.fromkeys(MEMBERS, 1.0)})
    release = lay_out_repository(release_dir, tmp_path / "repository")
    assert release.document()["fusion"]["alpha"] == by_class
    fusion = json.loads((tmp_path / "repository" / "logit_fusion" / "1" / "fusion.json").read_text())
    assert fusion["alpha"] == by_class
    assert is_laid_out(Release.model_validate(release.document()), tmp_path / "repository")


def test_a_repository_is_known_as_laid_out_only_from_its_release(release_dir: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    release = read_release(release_dir)
    assert not is_laid_out(release, repository)
    lay_out_repository(release_dir, repository)
    assert is_laid_out(release, repository)
    assert not is_laid_out(release, repository, EmbeddedOptions(streams=7))
    altered(release_dir, id="trained-other")
    assert not is_laid_out(read_release(release_dir), repository)
    lay_out_repository(release_dir, repository)
    assert is_laid_out(read_release(release_dir), repository)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("repository")] == ["repository"]


def test_nothing_is_laid_out_from_a_broken_release(release_dir: Path, tmp_path: Path) -> None:
    shutil.rmtree(release_dir / MEMBERS[0])
    with pytest.raises(ReleaseBroken):
        lay_out_repository(release_dir, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_shipped_release_is_whole_small_and_says_what_it_is() -> None:
    release = verify_release(SHIPPED)
    assert release.kind is ReleaseKind.DEMONSTRATION
    assert sum(file.size for file in release.files.values()) < 50 * 2**20
    assert set(release.metrics["validation"]) == {*MEMBERS, "fused"}
