"""The real server with the untrained release: the ensemble's answers, its failures, and a release installed for it."""

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from services.database.models import ModelRelease
from services.database.session import transaction
from services.errors import ConfigurationError
from services.evaluation.mixes import EQUAL, PUBLISHED, mixes_of
from services.inference.errors import (
    InferenceQueueFull,
    InferenceRejected,
    InferenceTimeout,
    InferenceUnavailable,
    as_ours,
)
from services.inference.networks import Networks
from services.keys import RELEASES
from services.local.child import Child, ServiceState
from services.local.installation import prepare_installation
from services.local.triton import find_environment, triton_server
from services.releases.registry import ReleaseLost, UnknownRelease
from services.releases.schema import MEMBERS, Fusion, Prior, Release, ReleaseBroken, ReleaseKind, read_release
from services.storage import ObjectStore
from services.taxonomy import CLASS_NAMES
from tests.integration.servers import serving, wait_for
from tests.waiting import wait_until
from triton_models.layout.model_configs import EmbeddedOptions
from triton_models.layout.repository import lay_out_repository
from triton_models.layout.served_here import ServedHere
from triton_models.untrained.grow import build_untrained

BOUND = 8  # on the members' queues, to fill one; nothing here sends the ensemble as many at once


@pytest.fixture(scope="module")
def release_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained networks, fused with one α a class and unlike temperatures, for a mix that they did not learn."""
    folder = tmp_path_factory.mktemp("grown") / "untrained"
    by_class = tuple(round(0.05 * number, 2) for number in range(18))
    mixes = mixes_of(CLASS_NAMES)
    prior = Prior(learnt=mixes[EQUAL], meant=mixes[PUBLISHED], strength=0.8)
    fusion = Fusion(alpha=by_class, temperatures=dict(zip(MEMBERS, (0.7, 1.4), strict=True)), prior=prior)
    build_untrained(folder).model_copy(update={"fusion": fusion}).write(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Server:
    """A running Triton."""

    child: Child
    endpoint: str
    release: Release

    def networks(self, *, batch: int = 16, timeout_s: float = 120) -> Networks:
        return Networks(self.endpoint, batch=batch, in_flight=4, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, release_dir: Path) -> Iterator[Server]:
    """Triton with the untrained release."""
    try:
        environment = find_environment(None)
    except ConfigurationError as error:
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("triton")
    installation = prepare_installation(home, "rclone", minio_available=False)
    repository = home / "triton" / "repository"
    release = lay_out_repository(release_dir, repository, options=EmbeddedOptions(max_queue_size=BOUND))
    with serving(triton_server(installation, environment), installation) as child:
        yield Server(child, f"127.0.0.1:{installation.ports['triton_grpc']}", release)


@pytest.fixture
def networks(triton: Server) -> Iterator[Networks]:
    """A line to the server."""
    line = triton.networks()
    yield line
    line.close()


def drawn_crops(rows: int, seed: int = 1) -> np.ndarray:
    """Crops `[rows, 192, 192, 3]`: a dark blot on a light ground, each another."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:192, 0:192]
    crops = np.empty((rows, 192, 192, 3), np.uint8)
    for crop in crops:
        inside = ((x - rng.integers(60, 130)) / rng.integers(10, 40)) ** 2 + ((y - 96) / rng.integers(10, 25)) ** 2 < 1
        crop[:] = rng.integers(190, 240, 3)
        crop[inside] = rng.integers(40, 160, 3)
    return crops


def test_the_ensemble_answers_logits_and_their_fusion(networks: Networks, triton: Server) -> None:
    assert networks.is_ready()
    crops = drawn_crops(7)
    said = networks.classify(crops)
    assert said.probabilities.shape == (7, 18)
    fusion = triton.release.fusion
    assert isinstance(fusion.alpha, tuple)
    assert fusion.prior is not None
    fused = fusion.probabilities(
        dict(zip(MEMBERS, (said.efficientnetv2_s_logits, said.resnetv2_50_logits), strict=True))
    )
    np.testing.assert_allclose(said.probabilities, fused, atol=1e-5)
    # Untrained, but alive: another crop gives another answer, and no logit is absurd.
    for logits in (said.efficientnetv2_s_logits, said.resnetv2_50_logits):
        assert np.ptp(logits, axis=0).max() > 0.1
        assert np.abs(logits).max() < 200


def test_a_crop_has_one_answer_whatever_it_is_sent_with(networks: Networks) -> None:
    # Requests are joined and cut into sub-batches of four, the last one padded: no row may end up elsewhere.
    crops = drawn_crops(13, seed=2)
    together = networks.classify(crops)
    parts = [networks.submit(crops[start:stop]) for start, stop in ((0, 3), (3, 8), (8, 9), (9, 13))]
    apart = np.concatenate([part.result().efficientnetv2_s_logits for part in parts])
    np.testing.assert_allclose(apart, together.efficientnetv2_s_logits, atol=1e-3)
    assert len(np.unique(together.efficientnetv2_s_logits[:, 0].round(3))) > 6


def test_the_server_runs_what_openvino_makes_of_the_release(
    networks: Networks, release_dir: Path, tmp_path: Path
) -> None:
    crops = drawn_crops(3, seed=3)
    np.save(tmp_path / "crops.npy", crops)
    program = (
        "import sys, numpy, openvino\n"
        "network = openvino.Core().compile_model(sys.argv[1], 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "numpy.save(sys.argv[3], network(numpy.load(sys.argv[2]))[0])\n"
    )
    said = networks.classify(crops)
    python = find_environment(None).folder / "bin" / "python"
    for member, served in zip(MEMBERS, (said.efficientnetv2_s_logits, said.resnetv2_50_logits), strict=True):
        arguments = [release_dir / member / "model.onnx", tmp_path / "crops.npy", tmp_path / f"{member}.npy"]
        subprocess.run([python, "-c", program, *arguments], check=True, timeout=120)
        np.testing.assert_allclose(served, np.load(tmp_path / f"{member}.npy"), atol=1e-2, rtol=1e-3)


def test_the_served_release_is_the_one_laid_out(networks: Networks, triton: Server) -> None:
    served = networks.served_release()
    assert served.release_id == triton.release.id
    assert (served.classes, served.crop_px, served.crop_um) == (CLASS_NAMES, 192, 24.0)


def test_crops_sent_for_one_release_are_answered_by_no_other(networks: Networks, triton: Server) -> None:
    assert len(networks.submit(drawn_crops(2), triton.release.id).result()) == 2
    with pytest.raises(InferenceUnavailable, match="not found"):
        networks.submit(drawn_crops(2), "untrained-another").result()


def test_a_batch_beyond_the_models_is_refused_at_the_release_check(triton: Server) -> None:
    line = triton.networks(batch=100)
    with pytest.raises(ConfigurationError, match="takes 64 crops"):
        line.served_release()
    line.close()


def test_crops_of_another_size_are_rejected(networks: Networks) -> None:
    with pytest.raises(InferenceRejected, match="CROPS"):
        networks.classify(np.zeros((2, 128, 128, 3), np.uint8))


def test_a_deadline_that_passes_is_a_timeout_and_the_line_goes_on(triton: Server, networks: Networks) -> None:
    hasty = triton.networks(timeout_s=0.02)
    with pytest.raises(InferenceTimeout):
        hasty.classify(drawn_crops(16))
    hasty.close()
    assert len(networks.classify(drawn_crops(1))) == 1


def test_a_full_queue_is_told_from_a_server_that_is_down(triton: Server) -> None:
    # Asked of a member itself: a refusal within the ensemble brings Triton 2.51 down, so there no queue is bounded.
    client = InferenceServerClient(triton.endpoint)
    tensor = InferInput("CROPS", [4, 192, 192, 3], "UINT8")
    tensor.set_data_from_numpy(drawn_crops(4))
    answers: list[InferenceServerException | None] = []
    for _ in range(4 * BOUND):
        client.async_infer("resnetv2_50", [tensor], lambda result, error: answers.append(error))
    wait_until(lambda: len(answers) == 4 * BOUND, what="an answer to each request")
    client.close()
    refused = [as_ours(error, triton.endpoint) for error in answers if error is not None]
    assert 0 < len(refused) < 4 * BOUND
    assert {type(error) for error in refused} == {InferenceQueueFull}


def test_a_killed_server_is_unavailable_and_found_again_by_the_same_line(triton: Server, networks: Networks) -> None:
    future = networks.submit(drawn_crops(64))
    pid = triton.child.report()["pid"]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InferenceUnavailable):
        future.result(timeout=30)
    assert not networks.is_ready()
    with pytest.raises(InferenceUnavailable):
        networks.classify(drawn_crops(1))
    with pytest.raises(InferenceUnavailable):
        networks.served_release()

    def crash_noticed() -> bool:  # a large process takes a moment to die
        triton.child.look()
        return triton.child.state is not ServiceState.READY

    wait_until(crash_noticed, what="its end")
    wait_for(triton.child)
    wait_until(networks.is_ready, 10, "found again")
    assert len(networks.classify(drawn_crops(2))) == 2


CLOSED: dict[str, tuple[Any, ...]] = {
    "get_model_repository_index": (),
    "load_model": ("resnetv2_50",),
    "unload_model": ("resnetv2_50",),
    "get_inference_statistics": (),
    "get_trace_settings": (),
    "update_trace_settings": (),
    "get_log_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("crops", "/morphbatch", 1),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("crops", b"", 0, 1),
    "unregister_cuda_shared_memory": (),
}


@pytest.mark.parametrize("call", CLOSED)
def test_what_no_client_of_ours_asks_for_is_closed(triton: Server, call: str) -> None:
    client = InferenceServerClient(triton.endpoint)
    try:
        for headers in (None, {"triton-grpc-protocol-closed": "to-everybody"}):
            with pytest.raises(InferenceServerException, match="restricted"):
                getattr(client, call)(*CLOSED[call], headers=headers)
    finally:
        client.close()


def test_the_header_that_would_open_it_cannot_be_sent(triton: Server) -> None:
    """Everybody may read its name and value from the server's command line, so that a client may leave out checks."""

    def answer(name: bytes) -> bytes:
        headers = {
            b":method": b"POST", b":scheme": b"http", b":path": b"/inference.GRPCInferenceService/RepositoryIndex",
            b":authority": b"triton", b"te": b"trailers", b"content-type": b"application/grpc", name: b"to-everybody",
        }  # fmt: skip
        block = b"".join(b"\0%c%b%c%b" % (len(n), n, len(v), v) for n, v in headers.items())
        frames = ((4, 0, 0, b""), (1, 4, 1, block), (0, 1, 1, bytes(5)))  # settings, headers, an empty message
        host, port = triton.endpoint.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            for kind, flags, stream, body in frames:
                line.sendall(struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body)
            answered = b""
            while b"grpc-status" not in answered[:-3]:
                answered += line.recv(4096)
            return answered

    assert b"grpc-status\x0214" in answer(b"triton-grpc-protocol-closed")  # UNAVAILABLE: "restricted"
    assert b"grpc-status\x012" in answer(b"triton-grpc-protocol-Closed")  # UNKNOWN: no request at all


def test_a_closed_line_is_unavailable(triton: Server) -> None:
    line = triton.networks()
    line.close()
    with pytest.raises(InferenceUnavailable):
        line.classify(drawn_crops(1))


# --- the release installed: database, object store, Triton's folder -----------------------------------------------


@pytest.fixture
def releases(database: Engine, empty_bucket: ObjectStore, tmp_path: Path) -> ServedHere:
    """No release anywhere."""
    return ServedHere(database, empty_bucket, tmp_path / "triton")


def test_the_shipped_release_is_installed_whole_and_once(
    releases: ServedHere,
    database: Engine,
    empty_bucket: ObjectStore,
    tmp_path: Path,
) -> None:
    with pytest.raises(ReleaseBroken, match="no release is active"):
        releases.verify()
    first = releases.install()
    assert (first.before, first.laid_out) == (None, True)
    again = releases.install()
    assert (again.release, again.before, again.laid_out) == (first.release, first.release.id, False)
    assert releases.verify() == first.release
    assert [(row.release_id, row.kind, row.active) for row in releases.registry.rows()] == [
        (first.release.id, "demonstration", True)
    ]
    published = {found.key for found in empty_bucket.list(f"{RELEASES}{first.release.id}/")}
    assert published == {f"{RELEASES}{first.release.id}/{name}" for name in ("release.json", *first.release.files)}

    # A second machine beside the same database and store fetches it; one without the store takes the shipped one again.
    other = ServedHere(database, empty_bucket, tmp_path / "other")
    assert other.install().laid_out
    assert other.verify() == first.release
    for key in published:
        empty_bucket.delete(key)
    third = ServedHere(database, empty_bucket, tmp_path / "third")
    third.install()
    assert {found.key for found in empty_bucket.list(f"{RELEASES}{first.release.id}/")} == published
    assert third.verify() == first.release


def test_a_published_release_becomes_the_active_one_when_it_is_activated(
    releases: ServedHere,
    release_dir: Path,
    empty_bucket: ObjectStore,
    database: Engine,
    tmp_path: Path,
) -> None:
    given = tmp_path / "given"
    for member in MEMBERS:
        (given / member).mkdir(parents=True)
        (given / member / "model.onnx").write_bytes((release_dir / member / "model.onnx").read_bytes())
    trained = read_release(release_dir).model_copy(update={"id": "demonstration-1", "kind": ReleaseKind.DEMONSTRATION})
    trained.write(given)

    shipped = releases.install().release.id
    published = releases.registry.publish(given)
    assert (published.recorded, published.published) == (True, True)
    assert releases.registry.publish(given) == replace(published, recorded=False, published=False)
    assert releases.verify().id == shipped, "published is not active"
    with pytest.raises(UnknownRelease, match="demonstration-1"):
        releases.activate("demonstration-2", by="test")

    # Activated on another machine, which has it from the store.
    other = ServedHere(database, empty_bucket, tmp_path / "other")
    switched = other.activate("demonstration-1", by="test")
    assert (switched.release.id, switched.before, switched.laid_out) == ("demonstration-1", shipped, True)
    assert other.verify() == trained
    assert releases.install().release.id == "demonstration-1"
    assert [row.release_id for row in releases.registry.rows() if row.active] == ["demonstration-1"]
    back = releases.activate(shipped, by="test")
    assert (back.before, back.laid_out) == ("demonstration-1", True)
    assert releases.verify().id == shipped
    releases.activate("demonstration-1", by="test")

    # The same id with other content is refused, and nothing is switched.
    trained.model_copy(update={"crop_um": 30.0}).write(given)
    with pytest.raises(ReleaseBroken, match="never changes"):
        releases.registry.publish(given)
    assert releases.verify() == trained

    # Its bytes nowhere: it is not the shipped one either.
    for found in list(empty_bucket.list(RELEASES)):
        empty_bucket.delete(found.key)
    with transaction(database) as session:
        assert session.get(ModelRelease, "demonstration-1") is not None
    with pytest.raises(ReleaseLost):
        ServedHere(database, empty_bucket, tmp_path / "elsewhere").install()
