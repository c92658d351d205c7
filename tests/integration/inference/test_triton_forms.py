"""The real server with a compiled form of a release: IR files in the embedded backend, and which form is installed."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from sqlalchemy import Engine

from services.errors import ConfigurationError
from services.inference.networks import Networks
from services.local.installation import prepare_installation
from services.local.triton import TritonEnvironment, find_environment, triton_server
from services.releases.schema import MEMBERS, Release, ReleaseBroken, digest
from services.storage import ObjectStore
from tests.integration.servers import serving
from tests.small_release import build_small_release, coloured_crops, small_network
from triton_models.compile.half_precision import unfold_weights
from triton_models.export.compression import compress_weights
from triton_models.forms.form import (
    OPENVINO_FP32,
    OPENVINO_INT8,
    Form,
    FormMissing,
    digests,
    new_form,
    onnx_hashes,
    write_form,
)
from triton_models.layout.model_configs import EmbeddedOptions
from triton_models.layout.repository import lay_out_repository
from triton_models.layout.served_here import ServedHere
from triton_models.untrained.grow import CROP_PX, build_untrained

_AS_IR = "import sys, openvino; openvino.save_model(openvino.Core().read_model(sys.argv[1]), sys.argv[2], False)"

_ONE_STREAM = (
    "import sys, numpy, openvino\n"
    "settings = {'INFERENCE_PRECISION_HINT': 'f32', 'NUM_STREAMS': 1}\n"
    "network = openvino.Core().compile_model(sys.argv[1], 'CPU', settings)\n"
    "numpy.save(sys.argv[3], network(numpy.load(sys.argv[2]))[0])\n"
)


@pytest.fixture(scope="module")
def environment() -> TritonEnvironment:
    """Triton's environment, which has OpenVINO."""
    try:
        return find_environment(None)
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, environment: TritonEnvironment) -> tuple[Path, Release]:
    """A small release with a form of IR files that hold other networks, so that one can tell which was opened."""
    folder = tmp_path_factory.mktemp("made")
    release = build_small_release(folder / "release")
    with new_form(folder / "release", OPENVINO_INT8) as out:
        for seed, member in enumerate(MEMBERS, 50):
            onnx.save(small_network(seed, 18), folder / f"{member}.onnx")
            (out / member).mkdir()
            arguments = [folder / f"{member}.onnx", out / member / "model.xml"]
            subprocess.run([environment.folder / "bin" / "python", "-c", _AS_IR, *arguments], check=True, timeout=60)
        write_form(
            out,
            Form(
                form=OPENVINO_INT8,
                target="openvino-int8",
                precision="int8",
                created=datetime.now(UTC),
                release_id=release.id,
                classes=release.classes,
                crop_px=release.crop_px,
                onnx=onnx_hashes(release),
                tool="a test",
                versions={},
                members={member: f"{member}/model.xml" for member in MEMBERS},
                files=digests(out),
                measured={},
            ),
        )
    return folder / "release", release


def test_the_server_opens_the_form_that_its_configuration_names(
    made: tuple[Path, Release], environment: TritonEnvironment, tmp_path: Path
) -> None:
    folder, release = made
    installation = prepare_installation(tmp_path, "rclone", minio_available=False)
    repository = tmp_path / "triton" / "repository"
    lay_out_repository(folder, repository, form=OPENVINO_INT8)
    crops = coloured_crops(7, seed=3)
    with serving(triton_server(installation, environment), installation):
        line = Networks(f"127.0.0.1:{installation.ports['triton_grpc']}", batch=16, in_flight=2, timeout_s=60)
        served = line.served_release()
        said = line.classify(crops)
        line.close()
    assert (served.release_id, served.form) == (release.id, OPENVINO_INT8)
    for seed, logits in enumerate((said.efficientnetv2_s_logits, said.resnetv2_50_logits), 50):
        expected = ReferenceEvaluator(small_network(seed, 18)).run(None, {"CROPS": crops})[0]
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-2)


def test_weights_that_are_stored_as_int8_answer_as_meant(environment: TritonEnvironment, tmp_path: Path) -> None:
    # At full size: left to unfold them itself, OpenVINO 2026.4.1 answered 1e20 and more on two streams.
    folder = tmp_path / "release"
    release = build_untrained(folder)
    for member in MEMBERS:
        model = onnx.load(folder / member / "model.onnx")
        compress_weights(model)
        onnx.save(model, folder / member / "model.onnx")
    files = {name: digest(folder / name) for name in release.files}
    release.model_copy(update={"id": "untrained-compressed", "files": files}).write(folder)
    installation = prepare_installation(tmp_path, "rclone", minio_available=False)
    repository = tmp_path / "triton" / "repository"
    lay_out_repository(folder, repository, options=EmbeddedOptions(streams=2))
    crops = np.random.default_rng(3).integers(0, 256, (6, CROP_PX, CROP_PX, 3), np.uint8)
    with serving(triton_server(installation, environment), installation):
        line = Networks(f"127.0.0.1:{installation.ports['triton_grpc']}", batch=16, in_flight=2, timeout_s=120)
        said = line.classify(crops)
        line.close()
    np.save(tmp_path / "crops.npy", crops)
    for member, logits in zip(MEMBERS, (said.efficientnetv2_s_logits, said.resnetv2_50_logits), strict=True):
        network = onnx.load(folder / member / "model.onnx")
        unfold_weights(network)
        onnx.save(network, tmp_path / f"{member}.onnx")
        arguments = [tmp_path / f"{member}.onnx", tmp_path / "crops.npy", tmp_path / f"{member}.npy"]
        subprocess.run([environment.folder / "bin" / "python", "-c", _ONE_STREAM, *arguments], check=True, timeout=120)
        np.testing.assert_allclose(logits, np.load(tmp_path / f"{member}.npy"), atol=1e-2, rtol=1e-3)


def test_the_installation_serves_the_form_that_it_is_set_to(
    made: tuple[Path, Release], database: Engine, empty_bucket: ObjectStore, tmp_path: Path
) -> None:
    folder, release = made
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    shutil.rmtree(bare / "forms")

    releases = ServedHere(database, empty_bucket, tmp_path / "triton", OPENVINO_INT8)
    releases.registry.publish(bare)
    with pytest.raises(FormMissing, match="has no form openvino-int8"):
        releases.activate(release.id, by="test")
    assert not any(row.active for row in releases.registry.rows()), "nothing is switched to what cannot be served"

    assert releases.registry.publish(folder).published is False, "forms are no part of what is published"
    assert releases.activate(release.id, by="test").laid_out
    assert releases.verify() == release
    assert (releases.repository / MEMBERS[0] / "1" / "model.xml").exists()
    assert not releases.install().laid_out

    by_itself = ServedHere(database, empty_bucket, tmp_path / "triton")
    assert by_itself.verify() == release, "int8 is what is served of a release that carries it"

    plain = ServedHere(database, empty_bucket, tmp_path / "triton", OPENVINO_FP32)
    with pytest.raises(ReleaseBroken, match=r"not laid out from small-.* \(openvino-fp32\)"):
        plain.verify()
    assert plain.install().laid_out
    assert (releases.repository / MEMBERS[0] / "1" / "model.onnx").exists()
