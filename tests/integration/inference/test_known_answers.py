"""The self-test of a release, asked of the real server, under the NumPy of each Python that it runs on."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from services.inference.known_answers import require_known_answers
from services.inference.networks import Networks
from services.keys import release_file_key
from services.local.installation import Installation, prepare_installation
from services.local.triton import TritonEnvironment, find_environment, triton_server
from services.releases.schema import Release
from services.releases.self_test import AnswersDiffer
from services.storage import ObjectStore
from tests.integration.servers import serving
from tests.places import CHECKOUT
from tests.small_release import build_small_release
from triton_models.layout.repository import lay_out_repository

OTHER = CHECKOUT / ".venv-triton-other"


@pytest.fixture(scope="module", params=["own Python", "other Python"])
def environment(request: pytest.FixtureRequest) -> TritonEnvironment:
    """Triton's environment; the other one has the other major version of NumPy."""
    if request.param == "own Python":
        return find_environment(None)
    if not (OTHER / "ready").exists():
        pytest.skip("`make triton-other` makes Triton's environment for another Python, where there is one")
    return find_environment(OTHER)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a release is laid out, and its server's ports."""

    installation: Installation
    environment: TritonEnvironment
    release: Release
    repository: Path

    def ask(self, store: ObjectStore) -> str:
        """Start the server, run the self-test, stop the server."""
        with serving(triton_server(self.installation, self.environment), self.installation):
            networks = Networks(
                f"127.0.0.1:{self.installation.ports['triton_grpc']}", batch=16, in_flight=4, timeout_s=60
            )
            try:
                return require_known_answers(networks, self.release, networks.served_release().form, store)
            finally:
                networks.close()


@pytest.fixture
def place(tmp_path: Path, environment: TritonEnvironment, empty_bucket: ObjectStore) -> Place:
    """A small release, published and laid out."""
    release = build_small_release(tmp_path / "release")
    for name in release.files:
        empty_bucket.put_file(release_file_key(release.id, name), tmp_path / "release" / name)
    installation = prepare_installation(tmp_path / "home", "rclone", minio_available=False)
    repository = installation.home / "triton" / "repository"
    lay_out_repository(tmp_path / "release", repository)
    return Place(installation, environment, release, repository)


def change(place: Place, name: str, before: str, after: str) -> None:
    """Change a file of the repository as it is served."""
    path = place.repository / name
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.unlink()  # it may share its bytes with the release
    path.write_text(text.replace(before, after), encoding="utf-8")


def read_otherwise(place: Place, member: str, body: str) -> None:
    """Let a member read its crops by the expression `body` of `tensor`."""
    change(place, f"{member}/1/tensors.py", "return np.from_dlpack(", "return _otherwise(")
    path = place.repository / member / "1" / "tensors.py"
    path.write_text(path.read_text() + f"\n\ndef _otherwise(tensor):\n    return {body}\n", encoding="utf-8")


def test_known_crops_have_their_known_logits(place: Place, empty_bucket: ObjectStore) -> None:
    assert place.ask(empty_bucket).startswith("12 known crops have their known logits")


def test_a_server_that_answers_for_the_first_crop_only_is_refused(place: Place, empty_bucket: ObjectStore) -> None:
    # What as_numpy() of an input makes of it under NumPy 2, whatever NumPy is here.
    read_otherwise(place, "efficientnetv2_s", "np.full_like(np.from_dlpack(tensor), np.from_dlpack(tensor).flat[0])")
    with pytest.raises(AnswersDiffer, match="12 known crops"):
        place.ask(empty_bucket)


def test_another_fusion_than_the_releases_is_refused(place: Place, empty_bucket: ObjectStore) -> None:
    change(place, "logit_fusion/1/fusion.json", '"alpha": 0.5', '"alpha": 0.9')
    with pytest.raises(AnswersDiffer, match="fusion"):
        place.ask(empty_bucket)


def test_numpys_own_way_is_only_right_under_numpy_1(place: Place, empty_bucket: ObjectStore) -> None:
    read_otherwise(place, "resnetv2_50", "tensor.as_numpy()")
    major = int(next(place.environment.site.glob("numpy-*.dist-info")).name.split("-")[1].split(".")[0])
    if major == 1:
        assert place.ask(empty_bucket).startswith("12 known crops")
    else:
        with pytest.raises(AnswersDiffer):
            place.ask(empty_bucket)


def test_a_release_without_a_self_test_must_agree_with_itself(place: Place, empty_bucket: ObjectStore) -> None:
    files = {name: file for name, file in place.release.files.items() if not name.startswith("self_test/")}
    older = Place(
        place.installation, place.environment, place.release.model_copy(update={"files": files}), place.repository
    )
    assert "no self-test" in older.ask(empty_bucket)
    read_otherwise(place, "resnetv2_50", "np.from_dlpack(tensor)[:1].repeat(tensor.shape()[0], 0)")
    with pytest.raises(AnswersDiffer, match="other crops of its request"):
        older.ask(empty_bucket)
