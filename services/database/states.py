"""The states of batches and slides, and the moves between them that are allowed.

A slide's state is that of its analysis under one release.
"""

from enum import StrEnum
from typing import Final


class BatchState(StrEnum):
    """`analysing` from the first dispatched slide on; the three last are final."""

    RECEIVED = "received"
    ANALYSING = "analysing"
    COMPLETE = "complete"
    COMPLETE_WITH_ERRORS = "complete_with_errors"
    REJECTED = "rejected"


class SlideState(StrEnum):
    """`insufficient` (fewer cells than asked) is a result; `quarantined` waits for a person."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    QUARANTINED = "quarantined"
    INSUFFICIENT = "insufficient"


BATCH_MOVES: Final[dict[BatchState, frozenset[BatchState]]] = {
    BatchState.RECEIVED: frozenset({BatchState.ANALYSING, BatchState.REJECTED}),
    BatchState.ANALYSING: frozenset({BatchState.COMPLETE, BatchState.COMPLETE_WITH_ERRORS}),
    BatchState.COMPLETE: frozenset({BatchState.ANALYSING}),  # requeue of a slide
    BatchState.COMPLETE_WITH_ERRORS: frozenset({BatchState.ANALYSING}),
    BatchState.REJECTED: frozenset({BatchState.RECEIVED}),  # a corrected manifest
}

SLIDE_MOVES: Final[dict[SlideState, frozenset[SlideState]]] = {
    SlideState.QUEUED: frozenset({SlideState.RUNNING}),
    SlideState.RUNNING: frozenset(
        {SlideState.QUEUED, SlideState.DONE, SlideState.INSUFFICIENT, SlideState.QUARANTINED}
    ),
    SlideState.DONE: frozenset({SlideState.QUEUED}),  # requeue
    SlideState.INSUFFICIENT: frozenset({SlideState.QUEUED}),
    SlideState.QUARANTINED: frozenset({SlideState.QUEUED}),
}

BATCH_CLOSED: Final = frozenset({BatchState.COMPLETE, BatchState.COMPLETE_WITH_ERRORS, BatchState.REJECTED})
SLIDE_ENDED: Final = frozenset({SlideState.DONE, SlideState.QUARANTINED, SlideState.INSUFFICIENT})
