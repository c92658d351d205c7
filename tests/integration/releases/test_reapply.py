"""Another fusion applied to cells on record: what is written, what counts from then on, and what is declined."""

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from services.batches.requeue import requeue
from services.benchmark import reapply as drawn
from services.benchmark.reapply import ALPHAS, DAY, fill
from services.cli.release import commands
from services.database.session import transaction
from services.releases.fusion import fuse
from services.releases.reapply import NotReapplicable, count_changes, plan_reapplication, write_reapplication
from services.settings import Settings
from tests.integration.servers import Postgres

CELLS = 21 * 400 + 30  # two batches, the second of two slides, the last slide not full
SLIDES = 22

_UNCHANGED = (
    "number, field_id, x0, y0, x1, y1, efficientnetv2_s_logits, resnetv2_50_logits, head_outline, head_length_um,"
    " head_width_um, head_area_um2, head_perimeter_um, ellipticity, received_on"
)


@pytest.fixture(scope="module")
def filled_once(postgres: Postgres) -> Iterator[Engine]:
    """Slides analysed under `bench-0`; `bench-1` has the same networks and another α."""
    with postgres.new_database() as engine:
        fill(engine, CELLS)
        with postgres.as_owner(engine) as session:
            session.execute(text("update analysis set state = 'insufficient', reason = 'too_few_cells' where id = 22"))
            session.execute(text('update field_result set rejected = \'[{"box": [1, 2, 3, 4], "reason": "shape"}]\''))
            session.execute(text("update field_result set signature = cast(field_id::text as bytea)"))
        yield engine


@pytest.fixture
def filled(postgres: Postgres, filled_once: Engine) -> Iterator[Engine]:
    """A copy of those slides."""
    with postgres.new_database(like=filled_once) as engine:
        yield engine


def rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with transaction(engine) as session:
        return [tuple(row) for row in session.execute(text(query), values)]


def current(engine: Engine) -> dict[str, int]:
    """Slides by the release of the analysis that counts."""
    return dict(rows(engine, "select release_id, count(*) from reporting.current_analysis group by 1"))


def test_every_slide_has_a_second_analysis_that_counts(filled: Engine) -> None:
    plan = plan_reapplication(filled, "bench-1", DAY)
    assert (plan.sources, plan.batches, plan.slides, plan.cells) == (("bench-0",), 2, SLIDES, CELLS)
    changes = count_changes(filled, plan)
    assert rows(filled, "select count(*) from analysis") == [(SLIDES,)], "counting writes nothing"
    assert write_reapplication(filled, plan, by="test") == SLIDES

    assert current(filled) == {"bench-1": SLIDES}
    differing = rows(
        filled,
        f"with old as (select slide_id, {_UNCHANGED} from cell join analysis on analysis.id = analysis_id"
        " where release_id = 'bench-0'),"
        f" new as (select slide_id, {_UNCHANGED} from cell join analysis on analysis.id = analysis_id"
        " where release_id = 'bench-1')"
        " select (select count(*) from old), (select count(*) from new),"
        " (select count(*) from (select * from old except select * from new) lost)",
    )
    assert differing == [(CELLS, CELLS, 0)]

    said, first, second, index, confidence = (
        np.array(values)
        for values in zip(
            *rows(
                filled,
                "select probabilities, efficientnetv2_s_logits, resnetv2_50_logits, class_index, confidence"
                " from reporting.cell order by analysis_id, number",
            ),
            strict=True,
        )
    )
    right = fuse(first.astype(np.float32), second.astype(np.float32), alpha=ALPHAS[1])
    np.testing.assert_allclose(said, right, atol=1e-6)
    np.testing.assert_array_equal(index, right.argmax(axis=1))
    np.testing.assert_allclose(confidence, right.max(axis=1), atol=1e-6)

    counted = rows(filled, "select class_index, sum(cells) from reporting.class_distribution group by 1 order by 1")
    assert [cells for _, cells in counted] == changes.sum(axis=0).tolist() == np.bincount(index, minlength=18).tolist()
    assert 0 < changes.sum() - changes.trace() < CELLS
    before = rows(filled, "select class_index, sum(cells) from slide_class_count join analysis a on a.id = analysis_id"
                  " where release_id = 'bench-0' group by 1 order by 1")  # fmt: skip
    assert [cells for _, cells in before] == changes.sum(axis=1).tolist(), "what was on record stays"

    columns = "slide_id, state, reason, attempts, started_at, finished_at, cells_classified"
    assert rows(filled, f"select {columns} from analysis where release_id = 'bench-1' order by slide_id") == rows(
        filled, f"select {columns} from analysis where release_id = 'bench-0' order by slide_id"
    )
    assert rows(filled, "select count(*) from analysis n join analysis o on o.id = n.fused_from and"
                " o.slide_id = n.slide_id where n.release_id = 'bench-1'") == [(SLIDES,)]  # fmt: skip
    fields = rows(filled, "select count(*), sum(objects_rejected) from reporting.quality_by_field where used")
    assert fields == [(SLIDES, SLIDES)]
    told_again = "select field_id, signature from field_result group by 1, 2 having count(*) = 2"
    assert len(rows(filled, told_again)) == SLIDES, "and are told again as before"
    audit = rows(filled, "select batch_id, detail from audit_event where kind = 'slides_fused_anew' order by batch_id")
    assert [(batch, note["slides"], note["by"]) for batch, note in audit] == [(1, 20, "test"), (2, 2, "test")]
    assert sum(note["cells"] for _, note in audit) == CELLS


def test_a_second_run_finds_nothing_to_do_and_the_way_back_is_open(filled: Engine) -> None:
    write_reapplication(filled, plan_reapplication(filled, "bench-1", DAY), by="test")
    again = plan_reapplication(filled, "bench-1", DAY)
    assert (again.slides, write_reapplication(filled, again, by="test")) == (0, 0)
    of_version = (
        "select slide_id, class_index, k.cells from analysis a join slide_class_count k on k.analysis_id = a.id"
        " where version = {} order by 1, 2"
    )
    versions = [rows(filled, of_version.format(version)) for version in (1, 2)]
    assert write_reapplication(filled, plan_reapplication(filled, "bench-0", DAY), by="test") == SLIDES
    assert current(filled) == {"bench-0": SLIDES}
    assert [rows(filled, of_version.format(version)) for version in (1, 2)] == versions, "nothing was overwritten"
    assert rows(filled, of_version.format(3)) == versions[0], "the same fusion of the same logits"
    assert rows(filled, "select count(*) from cell") == [(3 * CELLS,)]


def test_slides_before_the_day_and_those_requeued_meanwhile_are_left_alone(filled: Engine) -> None:
    assert plan_reapplication(filled, "bench-1", date(2026, 11, 3)).slides == 0
    plan = plan_reapplication(filled, "bench-1", DAY)
    requeue(filled, 2, ["s0"], by="test")
    assert write_reapplication(filled, plan, by="test") == SLIDES - 1
    assert current(filled) == {"bench-1": SLIDES - 1, "bench-0": 1}
    assert plan_reapplication(filled, "bench-1", DAY).slides == 0, "that slide is being analysed again"
    assert rows(filled, "select count(*) from cell where analysis_id in (select id from analysis"
                " where release_id = 'bench-1')") == [(CELLS - 400,)]  # fmt: skip


def test_a_batch_is_written_whole_or_not_at_all(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost within the second batch: the first is done, the second untouched; a new run does it."""
    monkeypatch.setattr("services.releases.reapply._CELLS_A_TRANSACTION", 1000)
    monkeypatch.setattr("services.releases.reapply._CELLS_AT_ONCE", 1000)
    plan = plan_reapplication(filled, "bench-1", DAY)
    done = 0

    def lost_in_the_second_batch(cells: int) -> None:
        nonlocal done
        done += cells
        if done > 20 * 400:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        write_reapplication(filled, plan, by="test", step=lost_in_the_second_batch)
    assert current(filled) == {"bench-1": 20, "bench-0": 2}
    rest = plan_reapplication(filled, "bench-1", DAY)
    assert (rest.slides, write_reapplication(filled, rest, by="test")) == (2, 2)
    assert current(filled) == {"bench-1": SLIDES}
    assert rows(filled, "select count(*) from reporting.cell") == [(CELLS,)]


def test_other_networks_are_refused_and_named(filled: Engine) -> None:
    with transaction(filled) as session:
        session.execute(
            text(
                "insert into model_release (id, kind, document) select 'other-1', kind, jsonb_set(jsonb_set(document,"
                " '{files,resnetv2_50/model.onnx,sha256}', to_jsonb(repeat('0', 64))), '{id}', '\"other-1\"')"
                " from model_release where id = 'bench-1'"
            )
        )
    with pytest.raises(NotReapplicable, match=r"22 slides .* other networks than other-1 .*bench-0"):
        plan_reapplication(filled, "other-1", DAY)
    with pytest.raises(NotReapplicable, match="publish"):
        plan_reapplication(filled, "unheard-of", DAY)


@pytest.fixture
def command(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`morphbatch release reapply` against the database."""
    url = filled.url.render_as_string(hide_password=False)
    monkeypatch.setattr("services.settings.load_settings", lambda: Settings(database_url=url))
    runner = CliRunner()
    return lambda *arguments, **given: runner.invoke(
        commands, ["reapply", "--release", "bench-1", "--since", "2026-11-01", *arguments], **given
    )


def test_the_change_is_shown_before_it_is_written(command: Any, filled: Engine) -> None:
    declined = command(input="n\n")
    assert declined.exit_code == 0, declined.output
    assert f"{SLIDES} slides of 2 batches" in declined.output
    assert "moved out" in declined.output
    assert current(filled) == {"bench-0": SLIDES}
    assert command("--dry-run", "--yes").exit_code == 0
    assert current(filled) == {"bench-0": SLIDES}

    shown = json.loads(command("--json").stdout)
    assert (shown["slides"], shown["cells"], shown["written_slides"]) == (SLIDES, CELLS, 0)
    assert sum(row["before"] for row in shown["classes"]) == sum(row["after"] for row in shown["classes"]) == CELLS
    assert shown["cells_moved"] == sum(row["moved_in"] for row in shown["classes"]) > 0
    assert all(row["after"] - row["before"] == row["moved_in"] - row["moved_out"] for row in shown["classes"])

    written = json.loads(command("--json", "--yes", "--reports").stdout)
    assert {**written, "written_slides": 0, "cells_per_second": 0} == {**shown, "cells_per_second": 0}
    assert written["written_slides"] == SLIDES
    assert current(filled) == {"bench-1": SLIDES}
    assert rows(filled, "select count(*) from batch where state = 'analysing' and close_at <= now()") == [(2,)]
    assert "nothing to do" in command("--yes").output


def test_the_benchmark_runs_and_adds_up(tmp_path: Any) -> None:
    result = drawn.measure_reapply(tmp_path / "bench", 3000, 2)
    assert result["cells"] == 3000
    assert result["written_cells_per_s"]["min"] > 0
    assert not (tmp_path / "bench").exists()


def test_a_release_that_counts_less_leaves_out_what_the_border_cuts_and_the_next_takes_it_back(
    postgres: Postgres, filled: Engine
) -> None:
    """At 0.1 µm a pixel a crop of 24 µm around the boxes at (10, 10) has 150 × 145 of its 240 × 240 pixels inside."""
    with postgres.as_owner(filled) as session:
        # Slide 1: half of its cells in the middle. Slide 2: shares were stored, and one cell is no sperm.
        session.execute(
            text("update cell set x0 = 600, x1 = 640, y0 = 500, y1 = 530 where analysis_id = 1 and number <= 200")
        )
        session.execute(text("update cell set crop_inside_share = 0.5 where analysis_id = 2"))
        session.execute(text("update cell set not_counted = 'not_a_sperm' where analysis_id = 2 and number = 1"))
        session.execute(
            text(
                "update analysis set cells_classified = 399, not_counted_by_reason = '{\"not_a_sperm\": 1}'"
                " where id = 2"
            )
        )
        session.execute(text('update analysis set made_with = \'{"settings": {"minimum_cells": 201}}\' where id <= 2'))
        for name, minimum in (("strict-1", 0.8), ("loose-1", 0.3)):
            session.execute(
                text(
                    "insert into model_release (id, kind, document) select :id, kind, document || jsonb_build_object("
                    "'id', cast(:id as text), 'minimum_crop_inside_share', cast(:minimum as float8))"
                    " from model_release where id = 'bench-1'"
                ),
                {"id": name, "minimum": minimum},
            )
    asked = (
        "select state, cells, not_counted_by_reason, cells_not_counted, reason from reporting.slide_result"
        " where batch_id = 'b0' and slide_id in ('s0', 's1') order by slide_id"
    )
    write_reapplication(filled, plan_reapplication(filled, "strict-1", DAY), by="test")
    first, second = rows(filled, asked)
    assert first == ("insufficient", 200, {"cut_by_border": 200}, 200, "too_few_cells")
    assert second == ("insufficient", 0, {"cut_by_border": 399, "not_a_sperm": 1}, 400, "too_few_cells")
    shares = rows(
        filled,
        "select not_counted, count(*), round(min(crop_inside_share)::numeric, 4) from reporting.cell"
        " where batch_id = 'b0' and slide_id = 's0' group by 1 order by 1",
    )
    assert shares == [("cut_by_border", 200, Decimal("0.3776")), (None, 200, None)]
    counted = rows(filled, "select sum(cells), max(cells_total), max(cells_not_counted) from"
                   " reporting.class_distribution where batch_id = 'b0' and slide_id = 's0'")  # fmt: skip
    assert counted == [(200, 200, 200)]

    write_reapplication(filled, plan_reapplication(filled, "loose-1", DAY), by="test")
    assert rows(filled, asked) == [("done", 400, {}, 0, None), ("done", 399, {"not_a_sperm": 1}, 1, None)]
