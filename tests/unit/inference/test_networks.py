"""Triton's client without a Triton: slots, errors, replies that must not be believed, the release check."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from services.errors import ConfigurationError, OutageError, PermanentError, TransientError
from services.inference import networks as module
from services.inference.errors import (
    InferenceFailed,
    InferenceQueueFull,
    InferenceRejected,
    InferenceTimeout,
    InferenceUnavailable,
    as_ours,
)
from services.inference.networks import Networks
from services.releases.served import MODELS, served_release
from services.taxonomy import CLASS_NAMES
from tests.waiting import wait_until

Callback = Callable[[Any, Any], None]


class Reply:
    """An answer: a dictionary of arrays."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def as_numpy(self, name: str) -> np.ndarray | None:
        return self.arrays.get(name)


class FakeTriton:
    """Keeps every request until the test answers it."""

    def __init__(self, *_: object, **__: object) -> None:
        self.waiting: list[tuple[int, Callback]] = []

    def async_infer(self, _model: str, inputs: list[Any], callback: Callback, **_: object) -> None:
        self.waiting.append((inputs[0].shape()[0], callback))

    def answer(self, reply: Reply | None = None, error: InferenceServerException | None = None) -> None:
        rows, callback = self.waiting.pop(0)
        callback(result=reply or (None if error else good_reply(rows)), error=error)  # type: ignore[call-arg]


def good_reply(rows: int, **changed: np.ndarray) -> Reply:
    arrays = {
        "PROBABILITIES": np.full((rows, 18), 1 / 18, np.float32),
        "EFFICIENTNETV2_S_LOGITS": np.zeros((rows, 18), np.float32),
        "RESNETV2_50_LOGITS": np.zeros((rows, 18), np.float32),
    }
    return Reply({**arrays, **changed})


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> FakeTriton:
    """The server that every `Networks` of the test speaks to."""
    fake = FakeTriton()
    monkeypatch.setattr(module, "InferenceServerClient", lambda *_, **__: fake)
    return fake


def crops(rows: int) -> np.ndarray:
    return np.zeros((rows, 8, 8, 3), np.uint8)


def test_submit_blocks_until_an_answer_frees_a_slot(triton: FakeTriton) -> None:
    networks = Networks("nowhere:1", batch=4, in_flight=2, timeout_s=9)
    first, _ = networks.submit(crops(4)), networks.submit(crops(4))
    third = threading.Thread(target=networks.submit, args=(crops(4),), daemon=True)
    third.start()
    wait_until(lambda: networks._slots._cond._waiters, what="the third waits for a slot")  # type: ignore[attr-defined]
    assert len(triton.waiting) == 2
    assert not first.cancel()  # Triton would run it all the same
    assert third.is_alive()
    triton.answer()
    assert first.result(timeout=1).probabilities.shape == (4, 18)
    third.join(timeout=5)
    assert len(triton.waiting) == 2


def test_many_crops_go_in_requests_of_a_batch_and_come_back_in_order(triton: FakeTriton) -> None:
    networks = Networks("nowhere:1", batch=4, in_flight=8, timeout_s=9)
    future = networks.submit(crops(10))
    assert [rows for rows, _ in triton.waiting] == [4, 4, 2]
    triton.waiting.reverse()
    for number in range(3):
        rows = triton.waiting[0][0]
        triton.answer(good_reply(rows, RESNETV2_50_LOGITS=np.full((rows, 18), number, np.float32)))
    assert future.result(timeout=1).resnetv2_50_logits[:, 0].tolist() == [2] * 4 + [1] * 4 + [0] * 2


def test_no_crops_are_answered_without_triton(triton: FakeTriton) -> None:
    assert len(Networks("nowhere:1", batch=4, in_flight=1, timeout_s=9).classify(crops(0))) == 0
    assert not triton.waiting


def test_a_failed_part_fails_the_whole_once_all_parts_are_back(triton: FakeTriton) -> None:
    networks = Networks("nowhere:1", batch=4, in_flight=8, timeout_s=9)
    future = networks.submit(crops(8))
    triton.answer(error=InferenceServerException("gone", status="StatusCode.UNAVAILABLE"))
    assert not future.done()
    triton.answer()
    with pytest.raises(InferenceUnavailable):
        future.result(timeout=1)


def test_after_a_failure_the_rest_is_not_sent(triton: FakeTriton) -> None:
    networks = Networks("nowhere:1", batch=1, in_flight=1, timeout_s=9)
    got: list[BaseException | None] = []
    sender = threading.Thread(target=lambda: got.append(networks.submit(crops(5)).exception(timeout=5)), daemon=True)
    sender.start()
    wait_until(lambda: len(triton.waiting) == 1)
    triton.answer(error=InferenceServerException("gone", status="StatusCode.UNAVAILABLE"))
    sender.join(timeout=5)
    assert isinstance(got[0], InferenceUnavailable)
    assert not triton.waiting


@pytest.mark.parametrize(
    "wrong",
    [
        {"PROBABILITIES": np.full((2, 17), 1 / 17, np.float32)},
        {"PROBABILITIES": np.full((2, 18), 1 / 18, np.float64)},
        {"PROBABILITIES": np.full((2, 18), 1.0, np.float32)},
        {"RESNETV2_50_LOGITS": np.zeros((3, 18), np.float32)},
        {"EFFICIENTNETV2_S_LOGITS": np.full((2, 18), np.nan, np.float32)},
        {"EFFICIENTNETV2_S_LOGITS": np.full((2, 18), np.inf, np.float32)},
        {"EFFICIENTNETV2_S_LOGITS": None},
    ],
)
def test_an_impossible_reply_is_an_error_and_frees_its_slot(triton: FakeTriton, wrong: dict[str, np.ndarray]) -> None:
    networks = Networks("nowhere:1", batch=2, in_flight=1, timeout_s=9)
    future = networks.submit(crops(2))
    triton.answer(good_reply(2, **wrong))
    with pytest.raises(InferenceFailed):
        future.result(timeout=1)
    networks.submit(crops(2))
    assert len(triton.waiting) == 1


def test_what_is_not_a_run_of_uint8_squares_is_refused(triton: FakeTriton) -> None:
    networks = Networks("nowhere:1", batch=2, in_flight=1, timeout_s=9)
    for wrong in (crops(1).astype(np.float32), crops(1)[0], crops(1)[:, :4], crops(1)[..., :1]):
        with pytest.raises(ValueError, match="UINT8"):
            networks.submit(wrong)


def test_a_line_opened_before_a_fork_is_refused(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = Networks("nowhere:1", batch=2, in_flight=1, timeout_s=9)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="fork"):
        networks.submit(crops(1))


@pytest.mark.parametrize(
    ("status", "words", "ours", "policy"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", InferenceTimeout, TransientError),
        ("UNAVAILABLE", "Request timeout expired", InferenceTimeout, TransientError),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", InferenceQueueFull, OutageError),
        ("UNAVAILABLE", "failed to connect to all addresses", InferenceUnavailable, OutageError),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", InferenceUnavailable, OutageError),
        ("CANCELLED", "Channel closed!", InferenceUnavailable, OutageError),
        ("INVALID_ARGUMENT", "unexpected shape for input 'CROPS'", InferenceRejected, PermanentError),
        ("INTERNAL", "Stub process 'logit_fusion_0_0' is not healthy.", InferenceUnavailable, OutageError),
        ("INTERNAL", "Failed to process the request(s)", InferenceFailed, TransientError),
        ("UNKNOWN", "?", InferenceFailed, TransientError),
    ],
)
def test_errors_are_told_apart_by_what_to_do(
    status: str, words: str, ours: type[Exception], policy: type[Exception]
) -> None:
    error = as_ours(InferenceServerException(words, status=f"StatusCode.{status}"), "triton:8001")
    assert type(error) is ours
    assert isinstance(error, policy)
    assert isinstance(error, OutageError) == (policy is OutageError)
    assert "triton:8001" in str(error)
    assert words in str(error)


def configurations(**changed: dict[str, str]) -> dict[str, dict[str, Any]]:
    usual = {
        "release_id": "r-1",
        "form": "openvino-int8",
        "classes": ",".join(CLASS_NAMES),
        "crop_px": "192",
        "crop_um": "24.0",
    }
    return {
        model: {
            "max_batch_size": 64,
            "parameters": {k: {"string_value": v} for k, v in {**usual, **changed.get(model, {})}.items()},
        }
        for model in MODELS
    }


def test_the_served_release_is_read_from_all_four_models() -> None:
    release = served_release(configurations(), batch=64)
    assert (release.release_id, release.classes, release.crop_px, release.crop_um) == ("r-1", CLASS_NAMES, 192, 24.0)
    assert release.form == "openvino-int8"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "changed",
    [{"release_id": "r-2"}, {"crop_px": "128"}, {"crop_um": "16.0"}, {"classes": "A,B"}, {"form": "openvino-fp32"}],
)
def test_models_of_different_releases_are_refused(model: str, changed: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="different releases"):
        served_release(configurations(**{model: changed}), batch=16)


def test_another_class_order_is_refused() -> None:
    other = {"classes": ",".join(reversed(CLASS_NAMES))}
    with pytest.raises(ConfigurationError, match="in this order"):
        served_release(configurations(**dict.fromkeys(MODELS, other)), batch=16)


def test_a_model_that_does_not_say_its_release_is_refused() -> None:
    mute = configurations()
    mute["logit_fusion"] = {"max_batch_size": 64}
    with pytest.raises(ConfigurationError, match="logit_fusion does not state its release"):
        served_release(mute, batch=16)


def test_a_batch_larger_than_triton_takes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes 64 crops"):
        served_release(configurations(), batch=65)
