"""What the self-test of a release accepts from a server, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from services.releases.schema import MEMBERS, Release
from services.releases.self_test import SELF_TEST, Answers, AnswersDiffer, SelfTest
from tests.small_release import build_small_release
from triton_models.layout.served_here import SHIPPED


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return build_small_release(tmp_path / "release")


@pytest.fixture
def test(release: Release, tmp_path: Path) -> SelfTest:
    return SelfTest.read((tmp_path / "release" / SELF_TEST).read_bytes(), release)


def answers(release: Release, test: SelfTest, off: float = 0.0, row: int = 0) -> Answers:
    """The right answers, but for one logit of one crop."""
    logits = {member: test.logits[member].copy() for member in MEMBERS}
    logits[MEMBERS[1]][row, 3] += off
    return Answers(logits, release.fusion.probabilities(logits))


def test_right_answers_pass_in_every_form(release: Release, test: SelfTest) -> None:
    for form in ("openvino-fp32", "openvino-int8"):
        assert test.check(release, form, answers(release, test)) == 0


def test_one_logit_off_is_refused_in_fp32_and_taken_as_rounding_in_int8(release: Release, test: SelfTest) -> None:
    with pytest.raises(AnswersDiffer, match=release.id):
        test.check(release, "openvino-fp32", answers(release, test, off=-0.1))
    assert test.check(release, "openvino-int8", answers(release, test, off=-0.1)) == pytest.approx(0.1, abs=1e-5)


def test_another_class_is_refused_in_int8(release: Release, test: SelfTest) -> None:
    with pytest.raises(AnswersDiffer):
        test.check(release, "openvino-int8", answers(release, test, off=200.0))


def test_probabilities_of_another_fusion_are_refused(release: Release, test: SelfTest) -> None:
    right = answers(release, test)
    wrong = Answers(right.logits, np.roll(right.probabilities, 1, axis=0))
    with pytest.raises(AnswersDiffer, match="fusion"):
        test.check(release, "openvino-fp32", wrong)


def test_an_altered_self_test_is_refused(release: Release, tmp_path: Path) -> None:
    data = (tmp_path / "release" / SELF_TEST).read_bytes()
    with pytest.raises(AnswersDiffer, match="altered"):
        SelfTest.read(data[:-1] + bytes([data[-1] ^ 1]), release)


def test_the_shipped_release_has_one() -> None:
    release = Release.model_validate_json((SHIPPED / "release.json").read_bytes())
    test = SelfTest.read((SHIPPED / SELF_TEST).read_bytes(), release)
    assert test.crops.shape == (12, release.crop_px, release.crop_px, 3)
    assert len({int(row.argmax()) for row in release.fusion.probabilities(test.logits)}) > 3
