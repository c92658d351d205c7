"""What can go wrong at Triton. They are told apart because what to do next differs."""

from typing import Final

from tritonclient.utils import InferenceServerException

from services.errors import MorphbatchError, OutageError, PermanentError, TransientError


class InferenceUnavailable(OutageError):
    """Triton cannot be reached, is stopping, has not loaded the models, or lost one: wait for it."""

    reason = "inference_unavailable"


class InferenceQueueFull(OutageError):
    """Triton's queue is full of other requests: wait. No slide is at fault, so no attempt is counted."""

    reason = "inference_queue_full"


class InferenceTimeout(TransientError):
    """No answer within the deadline. It counts as an attempt, since this slide may be what makes Triton hang."""

    reason = "inference_timeout"


class InferenceFailed(TransientError):
    """Triton accepted the request and failed, or its answer is invalid (wrong shape, values that are not finite)."""

    reason = "inference_failed"


class InferenceRejected(PermanentError):
    """Triton rejects the request: its shape or type is not what the release takes."""

    reason = "inference_rejected"


# Triton answers UNAVAILABLE for several things, and only its words tell them apart. All of them are tried again.
_QUEUE_FULL: Final = "maximum queue size"
_EXPIRED_IN_QUEUE: Final = "timeout expired"
_MODEL_ENDED: Final = "Stub process"  # "… 'logit_fusion_0_0' is not healthy", for every request from then on


def as_ours(error: InferenceServerException, endpoint: str) -> MorphbatchError:
    """The error of ours for a failed call to the Triton at `endpoint`, by its gRPC status."""
    status, words = str(error.status()).removeprefix("StatusCode."), str(error.message())
    match status:
        case "DEADLINE_EXCEEDED":
            return InferenceTimeout(f"Triton at {endpoint} did not answer in time: {words}")
        case "UNAVAILABLE" if _QUEUE_FULL in words:
            return InferenceQueueFull(f"the queue of Triton at {endpoint} is full: {words}")
        case "UNAVAILABLE" if _EXPIRED_IN_QUEUE in words:
            return InferenceTimeout(f"the request waited too long in the queue of Triton at {endpoint}: {words}")
        case "UNAVAILABLE" | "CANCELLED" | "NOT_FOUND":
            return InferenceUnavailable(f"Triton at {endpoint} is not available: {words}")
        case "INTERNAL" if _MODEL_ENDED in words:
            return InferenceUnavailable(
                f"a model's process at Triton at {endpoint} has ended, and only a restart of Triton brings it back; the"
                f" embedded stack and the cluster's probe do that: {words}"
            )
        case "INVALID_ARGUMENT" | "OUT_OF_RANGE" | "UNIMPLEMENTED":
            return InferenceRejected(f"Triton at {endpoint} refuses the request: {words}")
        case _:
            return InferenceFailed(f"Triton at {endpoint} failed with {status}: {words}")
