"""The batches of a lab as its program sees them: a list, the state of one, and what happened to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from services.database.session import transaction
from services.lims.queries import (
    EventRow,
    ListedBatch,
    SlideRow,
    batch_row,
    event_rows,
    key_of_batch,
    listed_batches,
    slides_by_state,
    slides_in_trouble,
    submission_row,
)
from services.lims.submissions import UnknownBatch

AWAITING_FIELDS: Final = "awaiting_fields"
SUBMITTED: Final = "submitted"
MOST_IN_TROUBLE: Final = 100
MOST_EVENTS: Final = 200


@dataclass(frozen=True, slots=True)
class BatchNow:
    """A batch at one moment.

    `state`: `awaiting_fields` until it is committed, `submitted` until the service has taken it in, then that of the
    batch itself. `batch_key`: null until then.
    """

    batch_key: int | None
    batch_id: str
    state: str
    received_at: datetime | None
    closed_at: datetime | None
    voided_at: datetime | None
    void_why: str | None
    fields: int
    slides: dict[str, int]
    troubled: tuple[SlideRow, ...]
    problems: tuple[dict[str, str], ...]


def page_of_batches(engine: Engine, lab: str, most: int, before: int | None) -> tuple[list[ListedBatch], int | None]:
    """At most so many batches of the lab, received last first; and what to give as `before` for the next page."""
    with transaction(engine) as session:
        found = listed_batches(session, lab, most + 1, before)
    return found[:most], found[most - 1].batch_key if len(found) > most else None


def batch_now(engine: Engine, lab: str, batch_id: str) -> BatchNow:
    """The batch that the lab calls so.

    Raises:
        UnknownBatch: it has announced and sent none.
    """
    with transaction(engine) as session:
        announced = submission_row(session, lab, batch_id)
        row = batch_row(session, lab, batch_id)
        if row is not None:
            return BatchNow(
                row.batch_key, batch_id, row.state, row.received_at, row.closed_at, row.voided_at, row.void_why,
                row.fields, slides_by_state(session, row.batch_key),
                tuple(slides_in_trouble(session, row.batch_key, MOST_IN_TROUBLE)), tuple(row.problems),
            )  # fmt: skip
    if announced is None:
        raise UnknownBatch(f"your lab has no batch {batch_id}")
    state = AWAITING_FIELDS if announced.committed_at is None else SUBMITTED
    fields = len(announced.sizes)
    return BatchNow(None, batch_id, state, None, None, None, None, fields, {}, (), ())


def batch_key(engine: Engine, lab: str, batch_id: str) -> int:
    """The number of the batch that the lab calls so.

    Raises:
        UnknownBatch: none is registered.
    """
    with transaction(engine) as session:
        found = key_of_batch(session, lab, batch_id)
    if found is None:
        raise UnknownBatch(f"your lab has no batch {batch_id}, or it is not taken in yet")
    return found


def events_after(engine: Engine, lab: str, batch_id: str, after: int) -> list[EventRow]:
    """What happened to the batch after the event `after`, at most `MOST_EVENTS`; an event comes after 2 s.

    Raises:
        UnknownBatch: the lab has announced and sent none.
    """
    with transaction(engine) as session:
        found = key_of_batch(session, lab, batch_id)
        if found is not None:
            return event_rows(session, found, after, MOST_EVENTS)
        if submission_row(session, lab, batch_id) is None:
            raise UnknownBatch(f"your lab has no batch {batch_id}")
    return []
