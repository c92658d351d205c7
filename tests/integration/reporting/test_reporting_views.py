"""The reporting views and the command line on a real Postgres."""

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from migrations.run import downgrade, upgrade
from services.cli.report import commands, download
from services.database.models import ModelRelease
from services.database.session import make_engine, transaction
from services.errors import PermanentError
from services.local.installation import OWNER
from services.reporting.exports.cells_parquet import write_cells_parquet
from services.reporting.queries import stream_cells
from services.reporting.references import MEASURES
from services.reporting.statistics import wilson
from services.settings import Settings
from services.taxonomy import CLASSES, NORMAL
from tests.integration.reporting.reporting_night import DAY, DOCUMENT, Night
from tests.integration.servers import Postgres


def test_views_and_python_agree_on_every_interval(full: Night) -> None:
    with transaction(full.engine) as session:
        rows = session.execute(text("select cells, cells_total, low_pct, high_pct from reporting.class_distribution"))
        seen = 0
        for cells, total, low, high in rows:
            interval = wilson(cells, total)
            assert (low, high) == (
                pytest.approx(interval.low_pct, abs=1e-9),
                pytest.approx(interval.high_pct, abs=1e-9),
            )
            seen += 1
        assert seen == 3 * 18
        views = session.execute(
            text("select class_name, replicate_1_cells, replicate_2_cells, cells_total"
                 " from reporting.specimen_distribution where specimen = 'S-01' and region = 'normal'")
        ).all()  # fmt: skip
        assert views == [("Normal", 8, 14, 400)]


def test_views_of_a_batch_its_nights_and_its_fields(full: Night) -> None:
    with transaction(full.engine) as session:
        overview = session.execute(text("select * from reporting.batch_overview")).mappings().one()
        assert (overview["slides"], overview["slides_quarantined"], overview["cells"]) == (4, 1, 403)
        assert overview["not_for_use"] is True
        night = session.execute(text("select * from reporting.throughput_by_night")).mappings().one()
        assert (night["night"], night["slides"], night["cells"]) == (date(2026, 11, 22), 4, 403)
        field = session.execute(text("select * from reporting.quality_by_field limit 1")).mappings().one()
        assert (field["focus_um"], field["stain_od"], field["flags"]) == (0.5, None, ["soft_focus"])
        assert (field["objects_rejected"], field["rejected_by_reason"]) == (1, {"border": 1, "shape": 1})
        regions = session.execute(text("select sum(cells) from reporting.region_share")).scalar_one()
        assert regions == 403
        classes = session.execute(
            text(
                "select class_code, class_name, class_name_tr, region, loinc from reporting.morphology_class order by 1"
            )
        ).all()
        assert classes == sorted((c.code, c.english, c.turkish, c.region.value, c.loinc) for c in CLASSES)
        assert session.execute(text("select fusion_alpha from reporting.release")).scalar_one() == 0.55
        assert session.execute(text("select count(*) from reporting.measure")).scalar_one() == len(MEASURES)


def without_comment(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return connection.execute(
            text(
                "select c.relname, a.attname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
                " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
                " where n.nspname = 'reporting' and c.relkind in ('v', 'r')"
                " and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)"
            )
        ).all()


def test_every_view_and_column_is_commented(engine: Engine) -> None:
    assert without_comment(engine) == []


def test_a_question_about_one_day_reads_one_partition(full: Night) -> None:
    with transaction(full.engine) as session:
        session.execute(text("select make_cell_partitions('2026-08-01', 3)"))
        plan = session.execute(
            text("explain select count(*) from reporting.cell where batch_key = 1 and received_on = '2026-11-23'")
        ).scalars()
        assert {line.split(" on ")[1].split()[0] for line in plan if " on cell_" in line} == {"cell_2026_11"}


def test_cells_come_in_parts_so_that_memory_does_not_grow_with_the_batch(
    full: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.reporting.queries.FETCH_ROWS", 50)
    monkeypatch.setattr("services.reporting.exports.cells_parquet.ROWS_PER_GROUP", 100)
    with transaction(full.engine) as session:
        parts = [len(part) for part in stream_cells(session, "number", full.batch_key, DAY)]
        assert write_cells_parquet(session, full.batch_key, DAY, tmp_path / "cells.parquet", None) == 403
    assert (len(parts), max(parts), sum(parts)) == (9, 50, 403)
    metadata = pq.ParquetFile(tmp_path / "cells.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [100, 100, 100, 100, 3]


def test_the_migration_goes_down_and_up_again(postgres: Postgres, engine: Engine) -> None:
    downgrade(postgres.url(OWNER, engine), "0001")
    with engine.connect() as connection:
        assert connection.execute(text("select to_regnamespace('reporting')")).scalar_one() is None
    upgrade(postgres.url(OWNER, engine))
    with engine.connect() as connection:
        named = text("select class_name from reporting.morphology_class where class_index = :index")
        assert connection.execute(named, {"index": NORMAL.index}).scalar_one() == "Normal"


def test_the_weight_by_class_leaves_the_view_of_releases_whole(postgres: Postgres, full: Night) -> None:
    owner = make_engine(postgres.url(OWNER, full.engine))
    downgrade(postgres.url(OWNER, owner), "0003")
    with owner.connect() as connection:
        before = connection.execute(text("select * from reporting.release")).mappings().one()
    assert without_comment(owner) == []
    upgrade(postgres.url(OWNER, owner))
    with owner.connect() as connection:
        after = connection.execute(text("select * from reporting.release")).mappings().one()
    owner.dispose()
    assert dict(after) == {**before, "fusion_alpha_by_class": None, "minimum_crop_inside_share": None}


def test_stains_on_record_come_under_one_code(postgres: Postgres, full: Night) -> None:
    with postgres.as_owner(full.engine) as session:
        session.execute(text("update slide set stain = case position when 0 then 'Diff Quick' else 'BesLab' end"))
    downgrade(postgres.url(OWNER, full.engine), "0007")
    upgrade(postgres.url(OWNER, full.engine))
    with transaction(full.engine) as session:
        stains = session.execute(text("select stain from reporting.slide_result order by position")).scalars().all()
    assert stains == ["diff-quik", *["BesLab"] * 3]


@pytest.fixture
def terminal(full: Night, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line with this database."""
    settings = Settings(database_url=full.engine.url.render_as_string(hide_password=False))
    monkeypatch.setattr("services.settings.load_settings", lambda: settings)
    monkeypatch.setattr("services.storage.connect_store", lambda _: full.store)
    return CliRunner()


def test_the_command_tells_of_a_weight_by_class(terminal: CliRunner, full: Night) -> None:
    with transaction(full.engine) as session:
        by_class = {"alpha": [0.25, *[0.5] * 16, 0.75], "temperatures": {}}
        session.get(ModelRelease, "r1").document = {**DOCUMENT, "fusion": by_class}
    shown = terminal.invoke(commands, ["night-1"], catch_exceptions=False).stdout
    assert "fusion weight of EfficientNetV2-S 0.25 to 0.75, one per class" in " ".join(shown.split())


def test_the_command_prints_a_running_batch_as_json(terminal: CliRunner) -> None:
    result = terminal.invoke(commands, ["night-1", "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["state"] == "analysing"
    assert [(s["slide_id"], s["state"], s["cells"]) for s in report["slides"]][2:] == [
        ("slide-2", "quarantined", 0),
        ("slide-3", "insufficient", 3),
    ]


def test_the_command_shows_the_warning_the_interval_and_the_limit(
    terminal: CliRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    shown = io.StringIO()
    monkeypatch.setattr("services.cli.report.out", Console(file=shown, width=200))
    assert terminal.invoke(commands, ["night-1"], catch_exceptions=False).exit_code == 0
    lines = shown.getvalue()
    assert lines.strip().startswith("UNTRAINED NETWORKS")
    assert "2.0–7.7 %" in lines
    assert "5th centile, 4 % (3.9–4.0); not a limit between fertile and infertile men" in lines
    assert "Amorphous head" in lines
    assert "AmorfHead" not in lines
    assert "checksum_mismatch" in lines
    assert "diagnosis" in lines


def test_an_unknown_batch_names_the_latest(terminal: CliRunner) -> None:
    with pytest.raises(PermanentError, match="berlin/night-1"):
        terminal.invoke(commands, ["night-2"], catch_exceptions=False)


def test_files_are_downloaded_once_they_are_complete(full: Night, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no files"):
        download(full.store, "berlin", "night-1", tmp_path)
    full.write()
    names = download(full.store, "berlin", "night-1", tmp_path)
    assert names[-1] == "report.json"
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(full.results())
