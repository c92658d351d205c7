"""Every move of the table, from every state, on a real Postgres: the allowed are made, the others change nothing."""

from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, insert, literal, select, text

from services.database.models import Analysis, Batch, FieldRow, Lab, Slide
from services.database.moves import begin, move, move_or_begin
from services.database.session import transaction
from services.database.states import BatchMove, BatchState, SlideMove, SlideState


@pytest.fixture
def rows(engine: Engine) -> Engine:
    """For each state a batch, with one slide; the slides' analyses, of the first batch, one in each state of theirs."""
    with transaction(engine) as session:
        session.add(Lab(code="berlin"))
        session.flush()
        for state in BatchState:
            batch = Batch(lab_id=1, batch_id=state, state=state, received_on=date(2026, 11, 2))
            batch.manifest_sha256 = batch.manifest_etag = "0"
            session.add(batch)
        session.flush()
        for position, of_slide in enumerate(SlideState):
            slide = Slide(batch_key=1, position=position, slide_id=of_slide, specimen="S", replicate=1)
            slide.stain, slide.um_per_px = "shorr", 0.1
            session.add(slide)
            session.flush()
            session.add_all(
                [
                    Analysis(slide_key=slide.id, release_id="r1", state=of_slide, attempts=2, lease_token="mine"),
                    FieldRow(slide_key=slide.id, position=0, key="f.png", sha256="0"),
                ]
            )
    return engine


def contents(engine: Engine, table: str) -> dict[str, Any]:
    """All rows by the state that they were made in."""
    name = "slide_code" if table == "analysis" else "batch_code"
    with transaction(engine) as session:
        found = session.execute(text(f"select * from {table} {'join slide on slide.id = slide_id' * (name[0] == 's')}"))
        return {row[name]: dict(row) for row in found.mappings()}


@pytest.mark.parametrize("step", [*SlideMove, *BatchMove], ids=lambda step: f"{type(step).__name__}.{step.name}")
def test_a_move_is_made_from_its_states_and_from_no_other(rows: Engine, step: SlideMove | BatchMove) -> None:
    table = "analysis" if isinstance(step, SlideMove) else "batch"
    before = contents(rows, table)
    with transaction(rows) as session:
        moved = len(move(session, step))
    after = contents(rows, table)
    assert {state for state in before if after[state] != before[state]} == step.origins
    assert all(after[state]["state"] == step.to for state in step.origins)
    assert moved == len(step.origins)
    if step.to not in step.origins:
        with transaction(rows) as session:
            assert move(session, step) == [], "nothing is left to move"


@pytest.mark.parametrize("step", [step for step in SlideMove if step.begins], ids=lambda step: step.name)
def test_an_analysis_that_is_there_moves_under_the_same_rules(rows: Engine, step: SlideMove) -> None:
    before = contents(rows, "analysis")
    with transaction(rows) as session:
        given = select(Analysis.slide_key, Analysis.release_id, literal(7).label("cells_classified"))
        assert len(move_or_begin(session, step, given)) == len(step.origins)
    after = contents(rows, "analysis")
    assert {state for state in before if after[state] != before[state]} == step.origins
    assert all((after[state]["state"], after[state]["cells_classified"]) == (step.to, 7) for state in step.origins)


@pytest.mark.parametrize("step", [*SlideMove, *BatchMove], ids=lambda step: f"{type(step).__name__}.{step.name}")
def test_a_row_begins_only_with_a_move_of_new_rows(rows: Engine, step: SlideMove | BatchMove) -> None:
    if isinstance(step, SlideMove):
        with transaction(rows) as session:
            session.execute(text("insert into model_release (id, kind, document) values ('r2', 'untrained', '{}')"))
        new = insert(Analysis).values(slide_key=1, release_id="r2")
    else:
        new = insert(Batch).values(lab_id=1, batch_id="n", received_on=date(2026, 11, 2), manifest_sha256="0")
        new = new.values(manifest_etag="0")
    with transaction(rows) as session:
        if not step.begins:
            with pytest.raises(ValueError, match=step.name):
                begin(step, new)
            return
        session.execute(begin(step, new))
    table, last = ("analysis", "release_id = 'r2'") if isinstance(step, SlideMove) else ("batch", "batch_code = 'n'")
    with transaction(rows) as session:
        assert session.execute(text(f"select state from {table} where {last}")).scalars().all() == [step.to]
