"""Every move of the table, from every state, on a real Postgres: the allowed are made, the others change nothing."""

from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, insert, literal, select, text
from sqlalchemy.exc import IntegrityError

from services.database.models import Analysis, Batch, FieldRow, Lab, Slide
from services.database.moves import begin, begin_next, move
from services.database.session import transaction
from services.database.states import SLIDE_ENDED, BatchMove, BatchState, SlideMove, SlideState


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


@pytest.mark.parametrize("step", [SlideMove.QUEUE, SlideMove.REAPPLY, SlideMove.REAPPLY_SHORT])
def test_the_next_version_leaves_the_one_before_as_it_was(rows: Engine, step: SlideMove) -> None:
    ended = Analysis.state.in_([state.value for state in SLIDE_ENDED])
    all_of_it = text("select * from analysis order by id")
    with transaction(rows) as session:
        before = session.execute(all_of_it).mappings().all()
        given = select(Analysis.slide_key, Analysis.release_id, literal(7).label("cells_classified")).where(ended)
        begun = begin_next(session, step, given)
        assert {(a.version, a.state, a.attempts, a.cells_classified) for a in begun} == {(2, step.to.value, 0, 7)}
        assert len(begun) == len(SLIDE_ENDED)
        after = session.execute(all_of_it).mappings().all()
    assert after[: len(before)] == before


def test_a_slide_is_never_under_way_twice(rows: Engine) -> None:
    running = select(Analysis.slide_key, Analysis.release_id).where(Analysis.state == SlideState.RUNNING)
    with transaction(rows) as session, pytest.raises(IntegrityError, match="uq_analysis_slide_id_open"):
        begin_next(session, SlideMove.QUEUE, running)


@pytest.mark.parametrize("step", [*SlideMove, *BatchMove], ids=lambda step: f"{type(step).__name__}.{step.name}")
def test_a_row_begins_only_with_a_move_of_new_rows(rows: Engine, step: SlideMove | BatchMove) -> None:
    if isinstance(step, SlideMove):
        with transaction(rows) as session:
            session.execute(text("insert into model_release (id, kind, document) values ('r2', 'untrained', '{}')"))
        new = insert(Analysis).values(slide_key=4, release_id="r2", version=2)
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
