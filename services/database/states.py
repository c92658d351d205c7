"""The states of batches, slides and deliveries, and the one table of moves between them.

A slide's state is that of one version of its analysis. Its end is final: a slide is analysed again in another version.
`services.database.moves` makes the moves, and no other SQL sets a state. From `new`: a row begins with that move.

| slide         | from    | to           | when                                                            |
|---------------|---------|--------------|-----------------------------------------------------------------|
| queue         | new     | queued       | its batch is registered, or a person asks for another version   |
| claim         | queued  | running      | a worker takes it and holds its lease                           |
| give_back     | running | queued       | the attempt failed but may succeed later, or its lease ran out  |
| finish        | running | done         | its cells are written                                           |
| fall_short    | running | insufficient | its cells are written, fewer than asked                         |
| quarantine    | running | quarantined  | it cannot be analysed until a person has helped                 |
| cancel        | queued  | cancelled    | its batch was cancelled before a worker took it                 |
| reapply       | new     | done         | another fusion was applied to the logits of an earlier version  |
| reapply_short | new     | insufficient | the same, and fewer cells than asked count                      |

| batch             | from                                      | to                   | when                         |
|-------------------|-------------------------------------------|----------------------|------------------------------|
| register          | new, rejected                             | analysing            | its manifest is right        |
| reject            | new                                       | rejected             | its manifest is wrong        |
| close             | analysing                                 | complete             | all slides have a result     |
| close_with_errors | analysing                                 | complete_with_errors | some are quarantined         |
| close_cancelled   | analysing                                 | cancelled            | a person cancelled it        |
| reopen            | complete, complete_with_errors, cancelled | analysing            | slides or reports come again |

| delivery | from    | to        | when                                                              |
|----------|---------|-----------|-------------------------------------------------------------------|
| send     | new     | waiting   | a report is issued, and its lab has a target for it               |
| accept   | waiting | delivered | the target took it                                                |
| stop     | waiting | stopped   | the target refuses it, or has not answered for days               |
| resend   | stopped | waiting   | a person has it sent again                                        |
| drop     | stopped | dropped   | a person gives it up, and says why                                |
"""

from enum import Enum, StrEnum
from typing import Final


class BatchState(StrEnum):
    """All but the first are final, unless a slide is requeued, a report written again or a manifest corrected."""

    ANALYSING = "analysing"
    COMPLETE = "complete"
    COMPLETE_WITH_ERRORS = "complete_with_errors"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class SlideState(StrEnum):
    """`insufficient` (fewer cells than asked) is a result; `quarantined` waits for a person; `cancelled` waited."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    QUARANTINED = "quarantined"
    INSUFFICIENT = "insufficient"
    CANCELLED = "cancelled"


class Held(StrEnum):
    """Why a queued slide may not be started now: `held` of the view `operations.open_batch`, which decides it."""

    BATCH_CANCELLED = "batch_cancelled"
    LAB_PAUSED = "lab_paused"
    BATCH_PAUSED = "batch_paused"
    OUTSIDE_WINDOW = "outside_window"


class DeliveryState(StrEnum):
    """`waiting` is sent until it is taken; `stopped` waits for a person."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    STOPPED = "stopped"
    DROPPED = "dropped"


DELIVERY_ENDED: Final = frozenset({DeliveryState.DELIVERED, DeliveryState.DROPPED})
BATCH_CLOSED: Final = frozenset(set(BatchState) - {BatchState.ANALYSING})
SLIDE_ENDED: Final = frozenset(set(SlideState) - {SlideState.QUEUED, SlideState.RUNNING})


class BatchMove(Enum):
    """The moves of a batch: the states it may come from, the one it goes to, and whether a row may begin with it."""

    REGISTER = (frozenset({BatchState.REJECTED}), BatchState.ANALYSING, True)
    REJECT = (frozenset[BatchState](), BatchState.REJECTED, True)
    CLOSE = (frozenset({BatchState.ANALYSING}), BatchState.COMPLETE, False)
    CLOSE_WITH_ERRORS = (frozenset({BatchState.ANALYSING}), BatchState.COMPLETE_WITH_ERRORS, False)
    CLOSE_CANCELLED = (frozenset({BatchState.ANALYSING}), BatchState.CANCELLED, False)
    REOPEN = (
        frozenset({BatchState.COMPLETE, BatchState.COMPLETE_WITH_ERRORS, BatchState.CANCELLED}),
        BatchState.ANALYSING,
        False,
    )

    def __init__(self, origins: frozenset[BatchState], to: BatchState, begins: bool) -> None:
        self.origins = origins
        self.to = to
        self.begins = begins


class SlideMove(Enum):
    """The moves of a slide: the states it may come from, the one it goes to, and whether a row may begin with it."""

    QUEUE = (frozenset[SlideState](), SlideState.QUEUED, True)
    CLAIM = (frozenset({SlideState.QUEUED}), SlideState.RUNNING, False)
    GIVE_BACK = (frozenset({SlideState.RUNNING}), SlideState.QUEUED, False)
    FINISH = (frozenset({SlideState.RUNNING}), SlideState.DONE, False)
    FALL_SHORT = (frozenset({SlideState.RUNNING}), SlideState.INSUFFICIENT, False)
    QUARANTINE = (frozenset({SlideState.RUNNING}), SlideState.QUARANTINED, False)
    CANCEL = (frozenset({SlideState.QUEUED}), SlideState.CANCELLED, False)
    REAPPLY = (frozenset[SlideState](), SlideState.DONE, True)
    REAPPLY_SHORT = (frozenset[SlideState](), SlideState.INSUFFICIENT, True)

    def __init__(self, origins: frozenset[SlideState], to: SlideState, begins: bool) -> None:
        self.origins = origins
        self.to = to
        self.begins = begins


class DeliveryMove(Enum):
    """The moves of a delivery: the states it may come from, the one it goes to, and whether a row may begin with it."""

    SEND = (frozenset[DeliveryState](), DeliveryState.WAITING, True)
    ACCEPT = (frozenset({DeliveryState.WAITING}), DeliveryState.DELIVERED, False)
    STOP = (frozenset({DeliveryState.WAITING}), DeliveryState.STOPPED, False)
    RESEND = (frozenset({DeliveryState.STOPPED}), DeliveryState.WAITING, False)
    DROP = (frozenset({DeliveryState.STOPPED}), DeliveryState.DROPPED, False)

    def __init__(self, origins: frozenset[DeliveryState], to: DeliveryState, begins: bool) -> None:
        self.origins = origins
        self.to = to
        self.begins = begins
