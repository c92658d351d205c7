"""Triton's client: crops in, predictions out, with a bound on what is under way."""

import os
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from services import metrics
from services.errors import MorphbatchError
from services.inference.errors import InferenceFailed, InferenceUnavailable, as_ours
from services.inference.predictions import Predictions
from services.releases.served import ENSEMBLE, MODELS, ServedRelease, ensemble_version, served_release
from services.taxonomy import CLASS_NAMES

_ASK_TIMEOUT_S: Final = 5.0  # of questions that run no network
_OUTPUTS: Final = {  # tensor of the ensemble → field of Predictions
    "PROBABILITIES": "probabilities",
    "EFFICIENTNETV2_S_LOGITS": "efficientnetv2_s_logits",
    "RESNETV2_50_LOGITS": "resnetv2_50_logits",
}
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC doubles its wait up to two minutes; a Triton that comes back after one should be found at once.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Networks:
    """A line to the ensemble at one Triton. May be shared by threads, never across a fork: make one a process.

    `batch` is the most crops in one request, `in_flight` the most requests under way, `timeout_s` the deadline of each.
    """

    def __init__(self, endpoint: str, *, batch: int, in_flight: int, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.batch = batch
        self._timeout_s = timeout_s
        self._slots = threading.BoundedSemaphore(in_flight)
        self._client = InferenceServerClient(endpoint, channel_args=_CHANNEL)
        self._outputs = [InferRequestedOutput(name) for name in _OUTPUTS]
        self._process = os.getpid()

    def classify(self, crops: NDArray[np.uint8]) -> Predictions:
        """What the networks say of `crops` `[N, S, S, 3]`, RGB.

        Raises:
            InferenceUnavailable, InferenceQueueFull: wait, and ask again.
            InferenceTimeout, InferenceFailed: may work another time.
            InferenceRejected: these crops are not what the release takes.
        """
        return self.submit(crops).result()

    def submit(self, crops: NDArray[np.uint8], release_id: str | None = None) -> Future[Predictions]:
        """Send `crops` `[N, S, S, 3]`, RGB, in requests of at most `batch`; blocks while `in_flight` are under way.

        If `release_id` is given, no other release answers: the future ends as `InferenceUnavailable` under another.
        Else it ends as `classify` does. It cannot be cancelled: Triton runs what it has been sent.

        Raises:
            ValueError: `crops` is not an array of UINT8 squares.
        """
        self._require_own_process()
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1] != crops.shape[2] or crops.shape[3] != 3:
            raise ValueError(f"crops must be UINT8 [N, S, S, 3], not {crops.dtype} {list(crops.shape)}")
        starts = range(0, len(crops), self.batch)
        gathering = _Gathering(rows=len(crops), parts=len(starts))
        for start in starts:
            self._slots.acquire()
            if gathering.failed:
                self._slots.release()
                gathering.part_ended(None)
                continue
            self._send(crops[start : start + self.batch], start, gathering, release_id)
        return gathering.future

    def served_release(self) -> ServedRelease:
        """The release that all four models belong to.

        Raises:
            ConfigurationError: they disagree, or do not fit this version of morphbatch.
            InferenceUnavailable, InferenceTimeout: Triton does not say.
        """
        return served_release({model: self._configuration(model) for model in MODELS}, batch=self.batch)

    def is_ready(self) -> bool:
        """Whether Triton answers and all four models are ready. Never raises for a Triton that is down."""
        self._require_own_process()
        try:
            return all(self._client.is_model_ready(model, client_timeout=_ASK_TIMEOUT_S) for model in MODELS)
        except InferenceServerException:
            return False

    def close(self) -> None:
        """Hang up; requests under way fail as `InferenceUnavailable`."""
        self._client.close()

    def _configuration(self, model: str) -> dict[str, Any]:
        self._require_own_process()
        try:
            answer = self._client.get_model_config(model, as_json=True, client_timeout=_ASK_TIMEOUT_S)
        except InferenceServerException as error:
            raise as_ours(error, self.endpoint) from error
        configuration: dict[str, Any] = answer["config"]
        return configuration

    def _send(self, crops: NDArray[np.uint8], start: int, gathering: "_Gathering", release_id: str | None) -> None:
        tensor = InferInput("CROPS", list(crops.shape), "UINT8")
        tensor.set_data_from_numpy(crops)
        try:
            self._client.async_infer(
                ENSEMBLE,
                [tensor],
                partial(self._answered, start, len(crops), time.perf_counter(), gathering),
                model_version="" if release_id is None else str(ensemble_version(release_id)),
                outputs=self._outputs,
                client_timeout=self._timeout_s,
            )
        except InferenceServerException as error:
            self._not_sent(as_ours(error, self.endpoint), gathering)
        except ValueError as error:  # grpc's way to say that the channel is closed
            closed = InferenceUnavailable(f"the connection to Triton at {self.endpoint} was closed: {error}")
            self._not_sent(closed, gathering)

    def _not_sent(self, error: MorphbatchError, gathering: "_Gathering") -> None:
        self._slots.release()
        metrics.TRITON_REQUESTS.labels(self._ended_by(error, gathering)).inc()

    @staticmethod
    def _ended_by(error: MorphbatchError, gathering: "_Gathering") -> str:
        gathering.part_ended(error)
        return error.reason

    def _answered(
        self,
        start: int,
        rows: int,
        sent: float,
        gathering: "_Gathering",
        result: InferResult | None,
        error: InferenceServerException | None,
    ) -> None:
        # Triton runs a request whose caller gave up just as well, so only here is the slot free again.
        self._slots.release()
        outcome = "ok"
        try:
            if error is not None:
                outcome = self._ended_by(as_ours(error, self.endpoint), gathering)
            elif result is not None:
                gathering.part_done(start, {name: self._checked(result, name, rows) for name in _OUTPUTS})
        except MorphbatchError as wrong:
            outcome = self._ended_by(wrong, gathering)
        except Exception as unforeseen:  # noqa: BLE001 - grpc would log and drop it, and the caller would wait for ever
            outcome = f"unexpected_{type(unforeseen).__name__}"
            gathering.part_ended(unforeseen)
        finally:
            metrics.TRITON_SECONDS.observe(time.perf_counter() - sent)
            metrics.TRITON_REQUESTS.labels(outcome).inc()

    def _checked(self, result: InferResult, name: str, rows: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] | None = result.as_numpy(name)
        if values is None or values.dtype != np.float32 or values.shape != (rows, len(CLASS_NAMES)):
            found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
            raise InferenceFailed(
                f"Triton at {self.endpoint} answered {found} as {name}, not float32 [{rows}, {len(CLASS_NAMES)}]"
            )
        if not np.isfinite(values).all():
            raise InferenceFailed(f"Triton at {self.endpoint} answered values in {name} that are not finite")
        if name == "PROBABILITIES" and not np.allclose(values.sum(axis=1), 1, atol=1e-3):
            raise InferenceFailed(f"Triton at {self.endpoint} answered probabilities that do not sum to 1")
        return values

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("this connection to Triton was opened before a fork; open one in each process")


class _Gathering:
    """The parts of one `submit`, until the last has come back."""

    def __init__(self, *, rows: int, parts: int) -> None:
        self.future: Future[Predictions] = Future()
        self.future.set_running_or_notify_cancel()
        self._predictions = Predictions.empty(rows)
        self._missing = parts
        self._error: Exception | None = None
        self._lock = threading.Lock()
        if not parts:
            self.future.set_result(self._predictions)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def part_done(self, start: int, values: dict[str, NDArray[np.float32]]) -> None:
        for name, rows in values.items():
            getattr(self._predictions, _OUTPUTS[name])[start : start + len(rows)] = rows
        self.part_ended(None)

    def part_ended(self, error: Exception | None) -> None:
        with self._lock:
            self._error = self._error or error
            self._missing -= 1
            last = self._missing == 0
        if not last:
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._predictions)
