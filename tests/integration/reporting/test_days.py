"""Days, nights and months are those of the lab's own clock, over both changes to and from daylight saving."""

import csv
import io
import json
from datetime import UTC, date, datetime

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from services.cli.lab import commands
from services.database.session import transaction
from services.intake.labs import UnknownTimeZone, labs, set_time_zone
from services.intake.queries import LabRow
from services.intake.validation import BadBatchName
from services.reporting.reading import read_report
from services.settings import Settings
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres

BERLIN, NEW_YORK, KOLKATA = "Europe/Berlin", "America/New_York", "Asia/Kolkata"

# Zone, a moment, and its day, month and night by that zone's clock.
MOMENTS = [
    # To summer time: 2026-03-29 has 23 hours in Berlin.
    (BERLIN, "2026-03-28T22:59:59Z", "2026-03-28", "2026-03-01", "2026-03-28"),
    (BERLIN, "2026-03-28T23:00:00Z", "2026-03-29", "2026-03-01", "2026-03-28"),
    (BERLIN, "2026-03-29T00:59:59Z", "2026-03-29", "2026-03-01", "2026-03-28"),
    (BERLIN, "2026-03-29T09:59:59Z", "2026-03-29", "2026-03-01", "2026-03-28"),
    (BERLIN, "2026-03-29T10:00:00Z", "2026-03-29", "2026-03-01", "2026-03-29"),
    (BERLIN, "2026-03-29T22:00:00Z", "2026-03-30", "2026-03-01", "2026-03-29"),
    # A month begins an hour or two before that of UTC.
    (BERLIN, "2026-03-31T21:59:59Z", "2026-03-31", "2026-03-01", "2026-03-31"),
    (BERLIN, "2026-03-31T22:00:00Z", "2026-04-01", "2026-04-01", "2026-03-31"),
    # And back: 2026-10-25 has 25 hours, and 02:30 twice.
    (BERLIN, "2026-10-24T22:00:00Z", "2026-10-25", "2026-10-01", "2026-10-24"),
    (BERLIN, "2026-10-25T02:30:00+02:00", "2026-10-25", "2026-10-01", "2026-10-24"),
    (BERLIN, "2026-10-25T02:30:00+01:00", "2026-10-25", "2026-10-01", "2026-10-24"),
    (BERLIN, "2026-10-25T10:59:59Z", "2026-10-25", "2026-10-01", "2026-10-24"),
    (BERLIN, "2026-10-25T11:00:00Z", "2026-10-25", "2026-10-01", "2026-10-25"),
    (BERLIN, "2026-10-25T22:59:59Z", "2026-10-25", "2026-10-01", "2026-10-25"),
    (BERLIN, "2026-10-25T23:00:00Z", "2026-10-26", "2026-10-01", "2026-10-25"),
    (NEW_YORK, "2026-11-01T03:59:59Z", "2026-10-31", "2026-10-01", "2026-10-31"),
    (NEW_YORK, "2026-11-01T04:00:00Z", "2026-11-01", "2026-11-01", "2026-10-31"),
    (NEW_YORK, "2026-11-01T16:59:59Z", "2026-11-01", "2026-11-01", "2026-10-31"),
    (NEW_YORK, "2026-03-08T15:59:59Z", "2026-03-08", "2026-03-01", "2026-03-07"),
    (NEW_YORK, "2026-03-08T16:00:00Z", "2026-03-08", "2026-03-01", "2026-03-08"),
    (KOLKATA, "2026-12-31T18:30:00Z", "2027-01-01", "2027-01-01", "2026-12-31"),
    ("UTC", "2026-12-31T11:59:59Z", "2026-12-31", "2026-12-01", "2026-12-30"),
]


def test_days_months_and_nights_are_the_labs(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 1, "AmorfHead": 9})
    night.slide(1, {"Normal": 1, "AmorfHead": 9}, replicate=2)
    found = []
    for zone, at, *_ in MOMENTS:
        set_time_zone(night.engine, "berlin", zone, by="a test")
        with postgres.as_owner(night.engine) as session:
            session.execute(text("update batch set received_at = :at"), {"at": at})
            session.execute(text("update analysis set finished_at = :at"), {"at": at})
        with transaction(night.engine) as session:
            day = session.execute(text("select distinct day, month, night from reporting.slide_day")).one()
            worked = session.execute(text("select night from reporting.throughput_by_night")).scalar_one()
        assert worked == day.night
        found.append((zone, at, *(f"{value}" for value in day)))
    assert found == MOMENTS


def test_the_day_of_a_slide_is_that_of_its_collection(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 1, "AmorfHead": 9})
    night.slide(1, {"Normal": 1, "AmorfHead": 9}, replicate=2)
    set_time_zone(night.engine, "berlin", BERLIN, by="a test")
    with postgres.as_owner(night.engine) as session:
        session.execute(text("update batch set received_at = '2026-11-01T05:00Z'"))
        session.execute(text("update slide set collected_at = '2026-10-31T22:30Z' where position = 0"))
    with transaction(night.engine) as session:
        report = read_report(session, night.batch_key)
    first, second = report.slides
    assert (report.time_zone, report.night) == (BERLIN, date(2026, 10, 31))
    assert first.collected_at == datetime.fromisoformat("2026-10-31T23:30:00+01:00")
    assert (first.day, second.collected_at, second.day) == (date(2026, 10, 31), None, date(2026, 11, 1))
    # Its slides do not say the same: the day is that of the one that says when.
    assert [(s.collected_at, s.day) for s in report.specimens] == [(first.collected_at, first.day)]


def test_every_table_has_the_day_of_collection(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 3})
    night.slide(1, {"Normal": 2}, specimen="S-02")
    set_time_zone(night.engine, "berlin", BERLIN, by="a test")
    with postgres.as_owner(night.engine) as session:
        session.execute(text("update batch set received_at = '2026-11-23T05:00Z'"))
        session.execute(text("update slide set collected_at = '2026-10-31T23:30Z' where position = 0"))
    night.write()
    said = [("2026-10-31T23:30:00+00:00", "2026-11-01"), ("", "2026-11-23")]
    for name in ("slides.csv", "specimens.csv"):
        rows = csv.DictReader(io.StringIO(night.get(name).decode()))
        assert [(row["collected_at"], row["day"]) for row in rows] == said
    cells = pq.read_table(io.BytesIO(night.get("cells.parquet")), columns=["collected_at", "day"]).to_pylist()
    collected = {"collected_at": datetime(2026, 10, 31, 23, 30, tzinfo=UTC), "day": date(2026, 11, 1)}
    assert cells == [collected] * 3 + [{"collected_at": None, "day": date(2026, 11, 23)}] * 2


def test_a_time_zone_is_set_by_its_name_also_before_the_first_batch(engine: Engine) -> None:
    assert set_time_zone(engine, "north", BERLIN, by="anna") == "UTC"
    assert set_time_zone(engine, "north", BERLIN, by="anna") == BERLIN
    assert labs(engine) == [LabRow("north", BERLIN, 0, False)]
    with transaction(engine) as session:
        told = session.execute(text("select detail from audit_event where kind = 'time_zone_set'")).scalars().all()
    assert told == [{"lab": "north", "time_zone": BERLIN, "before": "UTC", "by": "anna"}]
    for wrong in ("Europe/Atlantis", "europe/berlin", "", "UTC; drop table lab"):
        with pytest.raises(UnknownTimeZone, match="IANA name"):
            set_time_zone(engine, "north", wrong, by="anna")
    with pytest.raises(BadBatchName):
        set_time_zone(engine, "Anna Schmidt", BERLIN, by="anna")


def test_the_command(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    url = engine.url.render_as_string(hide_password=False)
    monkeypatch.setattr("services.settings.load_settings", lambda: Settings(database_url=url))
    run = CliRunner().invoke(commands, ["set", "north", "--time-zone", BERLIN, "--window", "20:00-06:00"])
    assert run.exit_code == 0, run.output
    listed = CliRunner().invoke(commands, ["list", "--json"])
    assert json.loads(listed.output) == [
        {
            "lab": "north", "time_zone": BERLIN, "batches": 0, "tests": False, "window_opens": "20:00:00",
            "window_closes": "06:00:00", "paused_at": None,
        }
    ]  # fmt: skip


def test_the_command_has_a_lab_test(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    url = engine.url.render_as_string(hide_password=False)
    monkeypatch.setattr("services.settings.load_settings", lambda: Settings(database_url=url))
    for option in ("--testing", "--testing", "--no-testing"):
        assert CliRunner().invoke(commands, ["set", "north", option]).exit_code == 0
        assert labs(engine) == [LabRow("north", "UTC", 0, option == "--testing")]
    with transaction(engine) as session:
        told = session.execute(text("select detail ->> 'tests' from audit_event where kind = 'lab_tests_set'"))
        assert told.scalars().all() == ["true", "false"]
    assert CliRunner().invoke(commands, ["set", "north"]).exit_code == 2


def test_a_report_says_which_order_it_answers(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 1, "AmorfHead": 9})
    night.slide(1, {"Normal": 1, "AmorfHead": 9}, replicate=2)
    said = "order_number = 'R-1', accession_number = 'A-1', sample_type = 'semen'"
    with postgres.as_owner(night.engine) as session:
        session.execute(text(f"update slide set {said}, stain_lot = 'L-9' where position = 1"))
    with transaction(night.engine) as session:
        report = read_report(session, night.batch_key)
    first, second = report.slides
    assert (first.order_number, first.accession_number, first.sample_type, first.stain_lot) == (None,) * 4
    assert (second.order_number, second.sample_type, second.stain_lot) == ("R-1", "semen", "L-9")
    [specimen] = report.specimens
    assert (specimen.order_number, specimen.accession_number, specimen.sample_type) == ("R-1", "A-1", "semen")
