"""The only SQL that sets the state of a slide (its analysis), of a batch or of a delivery.

Each is one compare-and-set statement: it names the states that the table of `services.database.states` allows, so that
a row in any other state, also one that another transaction changed a moment ago, is left as it is.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from sqlalchemy import ColumnElement, Insert, Select, TextClause, func, insert, literal, select, update
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch, Delivery
from services.database.states import BATCH_CLOSED, BatchMove, DeliveryMove, DeliveryState, SlideMove, SlideState

Condition = ColumnElement[bool] | TextClause
Move = SlideMove | BatchMove | DeliveryMove
_InsertT = TypeVar("_InsertT", bound=Insert)

_FRESH = {"populate_existing": True, "synchronize_session": False}  # what the session holds takes the new values


@overload
def move(session: Session, step: SlideMove, *where: Condition, **values: object) -> Sequence[Analysis]: ...
@overload
def move(session: Session, step: BatchMove, *where: Condition, **values: object) -> Sequence[Batch]: ...
@overload
def move(session: Session, step: DeliveryMove, *where: Condition, **values: object) -> Sequence[Delivery]: ...
def move(
    session: Session, step: Move, *where: Condition, **values: object
) -> Sequence[Analysis] | Sequence[Batch] | Sequence[Delivery]:
    """Move every row that fits all of `where` and is in a state from which `step` may be made; returns those moved.

    `values` are columns set with it, over those that the move itself implies: times, the lease, the count of attempts.
    """
    table: Any = {SlideMove: Analysis, BatchMove: Batch, DeliveryMove: Delivery}[type(step)]
    statement = (
        update(table)
        .where(table.state.in_([state.value for state in step.origins]), *where)
        .values(state=step.to.value, **{**_implied(step), **values})
    )
    return session.scalars(statement.returning(table), execution_options=_FRESH).all()


def begin(step: Move, statement: _InsertT) -> _InsertT:
    """`statement`, an insert into `analysis`, `batch` or `delivery`, with the state in which rows begin with `step`.

    Raises:
        ValueError: no row begins with that move.
    """
    _require_beginning(step)
    return statement.values(state=step.to.value)


def begin_next(session: Session, step: SlideMove, rows: "Select[*tuple[Any, ...]]") -> Sequence[Analysis]:
    """Begin the next version of the analysis of each slide of `rows`; returns them.

    Its columns are named as those of `Analysis`; `slide_key` and `release_id` are among them. The caller holds
    the lock of the slides' batches, so that no other version begins meanwhile.

    Raises:
        ValueError: no analysis begins with that move.
    """
    _require_beginning(step)
    asked = rows.subquery()
    earlier = select(func.max(Analysis.version)).where(Analysis.slide_key == asked.c.slide_key).scalar_subquery()
    new = select(asked, (func.coalesce(earlier, 0) + 1).label("version"), literal(step.to.value).label("state"))
    names = [column.name for column in new.selected_columns]
    return session.scalars(insert(Analysis).from_select(names, new).returning(Analysis)).all()


def _implied(step: Move) -> dict[str, object]:
    """Columns that follow from the move."""
    if isinstance(step, DeliveryMove):
        return {
            **{"lease_token": None, "lease_until": None, "next_try_at": func.now()},
            "ended_at": None if step.to is DeliveryState.WAITING else func.now(),
        }
    if isinstance(step, BatchMove):
        return {"closed_at": func.now() if step.to in BATCH_CLOSED else None, "close_at": None}
    if step is SlideMove.CLAIM:
        return {"attempts": Analysis.attempts + 1, "started_at": func.now(), "finished_at": None}
    nobodys: dict[str, object] = {"lease_token": None, "lease_until": None}
    return nobodys if step.to is SlideState.QUEUED else {**nobodys, "finished_at": func.now()}


def _require_beginning(step: Move) -> None:
    if not step.begins:
        raise ValueError(f"no row begins with {step.name}")
