"""The table of moves says what its docstring says, and no SQL but that of the moves sets a state."""

import ast
import re
from collections.abc import Iterator

import pytest

from services.database import states
from services.database.states import (
    BATCH_CLOSED,
    DELIVERY_ENDED,
    SLIDE_ENDED,
    BatchMove,
    BatchState,
    DeliveryMove,
    DeliveryState,
    SlideMove,
    SlideState,
)
from tests.places import CHECKOUT

# Moves are made in the first; the last two describe and draw rows, the last for a measurement on a database of its own.
ALLOWED = {"services/database/moves.py", "services/database/models.py", "services/benchmark/reapply.py"}


@pytest.mark.parametrize(("what", "moves"), [("slide", SlideMove), ("batch", BatchMove), ("delivery", DeliveryMove)])
def test_the_docstring_draws_the_table(
    what: str, moves: type[SlideMove] | type[BatchMove] | type[DeliveryMove]
) -> None:
    drawn = {}
    lines = (states.__doc__ or "").split(f"| {what} ")[1].split("\n\n")[0].splitlines()[2:]
    for line in lines:
        name, origins, to, why = (cell.strip() for cell in line.strip("|").split("|"))
        named = origins.replace("ended", ", ".join(SLIDE_ENDED)).split(", ")
        drawn[name] = (set(named) - {"new"}, to, "new" in named)
        assert why
    assert drawn == {step.name.lower(): (set(step.origins), str(step.to), step.begins) for step in moves}


def test_every_state_can_be_reached_and_none_but_the_ends_is_left_by_nothing() -> None:
    for moves, states_of_it, ends in (
        (SlideMove, SlideState, SLIDE_ENDED),
        (BatchMove, BatchState, BATCH_CLOSED),
        (DeliveryMove, DeliveryState, DELIVERY_ENDED),
    ):
        known = {state for step in moves for state in (*step.origins, step.to)}
        assert known == set(states_of_it)
        assert {step.to for step in moves} == known
        assert known - {origin for step in moves for origin in step.origins} <= ends


def states_set(source: str) -> Iterator[str]:
    """What of a module sets a column `state`: in SQL as text, in a constructed statement, or on a row."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            sql = ast.unparse(node) if isinstance(node, ast.JoinedStr) else str(node.value)
            sql = re.sub(r"\s+", " ", sql.lower())
            yield from re.findall(r"\bset (?:(?!where ).)*?\bstate ?=[^=]", sql)
            yield from re.findall(r"\binsert into (?:analysis|batch|delivery) ?\([^)]*\bstate\b", sql)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            named = {keyword.arg for keyword in node.keywords}
            named |= {key.value for a in ast.walk(node) if isinstance(a, ast.Dict) for key in a.keys if _is_text(key)}
            if called in {"values", "Analysis", "Batch", "Delivery", "on_conflict_do_update"} and "state" in named:
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "state":
            yield ast.unparse(node)


def _is_text(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and isinstance(key.value, str)


def knows_the_tables(source: str) -> bool:
    return "services.database" in source or "sqlalchemy" in source


def test_no_other_sql_sets_a_state() -> None:
    setting = {}
    for path in (p for room in ("services", "worker") for p in (CHECKOUT / room).rglob("*.py")):
        source = path.read_text()
        name = path.relative_to(CHECKOUT).as_posix()
        if knows_the_tables(source) and name not in ALLOWED and (found := list(states_set(source))):
            setting[name] = found
    assert setting == {}, "use services.database.moves"


@pytest.mark.parametrize(
    "statement",
    [
        "text(\"update batch set closed_at = now(), state = 'complete' where id = :id\")",
        "text(\"insert into batch (lab_id, state) values (1, 'complete')\")",
        "text('insert into analysis (id) values (1) on conflict (id) do update set attempts = 0, state = :s')",
        "text(f\"update analysis set {column} = 1, state = '{state}'\")",
        "update(Batch).values(state='complete')",
        "update(Batch).values({'state': 'complete'})",
        "upsert(Batch).on_conflict_do_update(set_={'state': 'complete'})",
        "Analysis(slide_key=1, state='done')",
        "batch.state = 'complete'",
    ],
)
def test_sql_that_sets_a_state_is_found(statement: str) -> None:
    assert list(states_set(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "text(\"update batch set close_at = now() where state = 'analysing'\")",
        "text(\"select state from batch where state = 'queued'\")",
        "select(Batch).where(Batch.state == 'complete')",
    ],
)
def test_sql_that_asks_for_a_state_is_let_be(statement: str) -> None:
    assert list(states_set(statement)) == []
