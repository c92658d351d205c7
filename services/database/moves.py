"""The only SQL that sets the state of a slide (its analysis) or of a batch.

Each is one compare-and-set statement: it names the states that the table of `services.database.states` allows, so that
a row in any other state, also one that another transaction changed a moment ago, is left as it is.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from sqlalchemy import ColumnElement, Insert, Select, TextClause, func, literal, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services.database.models import Analysis, Batch
from services.database.states import BATCH_CLOSED, BatchMove, SlideMove, SlideState

Condition = ColumnElement[bool] | TextClause
_InsertT = TypeVar("_InsertT", bound=Insert)

_FRESH = {"populate_existing": True, "synchronize_session": False}  # what the session holds takes the new values


@overload
def move(session: Session, step: SlideMove, *where: Condition, **values: object) -> Sequence[Analysis]: ...
@overload
def move(session: Session, step: BatchMove, *where: Condition, **values: object) -> Sequence[Batch]: ...
def move(
    session: Session, step: SlideMove | BatchMove, *where: Condition, **values: object
) -> Sequence[Analysis] | Sequence[Batch]:
    """Move every row that fits all of `where` and is in a state from which `step` may be made; returns those moved.

    `values` are columns set with it, over those that the move itself implies: times, the lease, the count of attempts.
    """
    table: Any = Analysis if isinstance(step, SlideMove) else Batch
    statement = (
        update(table)
        .where(table.state.in_([state.value for state in step.origins]), *where)
        .values(state=step.to.value, **{**_implied(step), **values})
    )
    return session.scalars(statement.returning(table), execution_options=_FRESH).all()


def begin(step: SlideMove | BatchMove, statement: _InsertT) -> _InsertT:
    """`statement`, an insert into `analysis` or `batch`, with the state in which rows begin with `step`.

    Raises:
        ValueError: no row begins with that move.
    """
    _require_beginning(step)
    return statement.values(state=step.to.value)


def move_or_begin(session: Session, step: SlideMove, rows: "Select[*tuple[Any, ...]]") -> Sequence[Analysis]:
    """Move the analysis of each of `rows`, or begin it where there is none; returns those moved or begun.

    The columns of `rows` are named as those of `analysis`; `slide_id` and `release_id` are among them. An analysis in a
    state from which `step` may not be made is left as it is.

    Raises:
        ValueError: no analysis begins with that move.
    """
    _require_beginning(step)
    names = [column.name for column in rows.selected_columns]
    statement = upsert(Analysis).from_select([*names, "state"], rows.add_columns(literal(step.to.value)))
    given = {name: statement.excluded[name] for name in names if name not in ("slide_id", "release_id")}
    statement = statement.on_conflict_do_update(
        index_elements=[Analysis.slide_key, Analysis.release_id],
        set_={"state": step.to.value, **_implied(step), **given},
        where=Analysis.state.in_([state.value for state in step.origins]),
    )
    return session.scalars(statement.returning(Analysis), execution_options={"populate_existing": True}).all()


def _implied(step: SlideMove | BatchMove) -> dict[str, object]:
    """Columns that follow from the move."""
    if isinstance(step, BatchMove):
        return {"closed_at": func.now() if step.to in BATCH_CLOSED else None, "close_at": None}
    if step is SlideMove.CLAIM:
        return {"attempts": Analysis.attempts + 1, "started_at": func.now(), "finished_at": None}
    nobodys: dict[str, object] = {"lease_token": None, "lease_until": None}
    if step is SlideMove.REQUEUE:
        now = func.now()
        return {**nobodys, "attempts": 0, "reason": None, "detail": None, "queued_at": now, "publish_at": now}
    return nobodys if step.to is SlideState.QUEUED else {**nobodys, "finished_at": func.now()}


def _require_beginning(step: SlideMove | BatchMove) -> None:
    if not step.begins:
        raise ValueError(f"no row begins with {step.name}")
