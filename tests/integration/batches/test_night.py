"""A night in ten lines, from rows as the service leaves them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from services.batches.night import Night, read_night
from services.batches.queries import LabNight
from services.database.models import Batch, Lab
from services.database.session import transaction
from services.database.states import BatchState, SlideState
from services.intake.labs import set_time_zone
from services.reporting.reading import read_report
from tests.integration.reporting.reporting_night import Night as Rows

EVENING = date(2026, 11, 23)
RECEIVED = datetime(2026, 11, 23, 20, tzinfo=UTC)
MORNING = datetime(2026, 11, 24, 7, tzinfo=UTC)
BERLIN, NEW_YORK, TOKYO = "Europe/Berlin", "America/New_York", "Asia/Tokyo"


def received(engine: Engine, at: datetime = RECEIVED, state: BatchState = BatchState.COMPLETE) -> None:
    """The batch `berlin/night-1` was received then and is in that state."""
    with transaction(engine) as session:
        session.execute(text("update batch set received_at = :at, state = :state"), {"at": at, "state": state})


def another(engine: Engine, lab: str, batch: str, at: datetime, **columns: Any) -> None:
    """A batch without slides."""
    with transaction(engine) as session:
        of = session.query(Lab).filter_by(code=lab).one_or_none() or Lab(code=lab)
        session.add(of)
        session.flush()
        row = Batch(lab_id=of.id, batch_id=batch, manifest_sha256="0", manifest_etag="0", received_on=at.date())
        row.received_at = at
        for name, value in {"state": BatchState.COMPLETE, **columns}.items():
            setattr(row, name, value)
        session.add(row)


def told(night: Night) -> dict[str, list[str]]:
    """Its lines by what they are about."""
    lines = list(night.lines())
    assert len(lines) <= 10
    by_label: dict[str, list[str]] = {}
    for label, words in lines:
        by_label.setdefault(label, []).append(words)
    return by_label


def test_a_good_night_is_complete(night: Rows) -> None:
    night.slide(0, {"Normal": 8, "AmorfHead": 192})
    night.slide(1, {"PinHead": 3}, state=SlideState.INSUFFICIENT, reason="too_few_cells")
    received(night.engine)
    found = read_night(night.engine, MORNING)
    assert found.is_complete
    assert told(found) == {
        "night": ["2026-11-23, noon to noon by the clock of UTC: complete"],
        "batches": ["1 of 1 lab: 1 complete"],
        "slides": ["2: 1 done, 1 with too few cells"],
        "cells": ["203 counted, from 23 Nov 02:00 to 23 Nov 02:00 UTC"],
    }


def test_what_is_missing_is_named_with_its_reason_and_what_to_do(full: Rows) -> None:
    full.slide(4, {}, state=SlideState.QUEUED, reason="inference_unavailable")
    received(full.engine, state=BatchState.ANALYSING)
    found = read_night(full.engine, MORNING)
    assert not found.is_complete
    lines = told(found)
    assert lines["night"] == ["2026-11-23, noon to noon by the clock of UTC: NOT COMPLETE"]
    assert lines["batches"] == ["1 of 1 lab: 1 not ended"]
    assert lines["missing"] == ["berlin/night-1: 1 slide not ended, 1 slide quarantined"]
    assert lines["why"] == [
        "1 slide quarantined, checksum_mismatch: field broken: checksum_mismatch",
        "1 slide queued, inference_unavailable: field broken: inference_unavailable",
    ]
    assert "morphbatch doctor" in lines["do"][0]
    assert "morphbatch requeue night-1 --lab berlin" in lines["do"][1]


def test_many_troubles_are_told_in_ten_lines_too(full: Rows) -> None:
    received(full.engine, state=BatchState.COMPLETE_WITH_ERRORS)
    for number in range(3):
        problems = [{"path": "", "reason": "x", "message": "y"}]
        another(full.engine, "oslo", f"n-{number}", RECEIVED, state=BatchState.REJECTED, problems=problems)
    another(full.engine, "rome", "n", RECEIVED, state=BatchState.ANALYSING)
    lines = told(read_night(full.engine, MORNING))
    assert lines["batches"] == ["5 of 3 labs: 1 with quarantined slides, 1 not ended, 3 rejected"]
    assert lines["missing"][1:] == [
        "oslo/n-0: its manifest was rejected, 1 problem",
        "and 3 more batches: --json lists them",
    ]
    assert "morphbatch watch n-0 --lab oslo" in lines["do"][0]


def test_a_batch_without_a_report_is_missing(night: Rows) -> None:
    night.slide(0, {"Normal": 8})
    received(night.engine, state=BatchState.ANALYSING)
    lines = told(read_night(night.engine, MORNING))
    assert lines["missing"] == ["berlin/night-1: its slides have ended, its report is not written yet"]


@pytest.mark.parametrize(
    ("zone", "at", "evening"),
    [
        ("UTC", "2026-11-23T11:59:59Z", "2026-11-22"),
        ("UTC", "2026-11-23T12:00:00Z", "2026-11-23"),
        ("UTC", "2026-11-24T11:59:59Z", "2026-11-23"),
        # To summer time: the night has 23 hours.
        (BERLIN, "2026-03-28T10:59:59Z", "2026-03-27"),
        (BERLIN, "2026-03-28T11:00:00Z", "2026-03-28"),
        (BERLIN, "2026-03-29T09:59:59Z", "2026-03-28"),
        (BERLIN, "2026-03-29T10:00:00Z", "2026-03-29"),
        # And back: 25 hours.
        (BERLIN, "2026-10-24T10:00:00Z", "2026-10-24"),
        (BERLIN, "2026-10-25T10:59:59Z", "2026-10-24"),
        (BERLIN, "2026-10-25T11:00:00Z", "2026-10-25"),
        (NEW_YORK, "2026-03-08T15:59:59Z", "2026-03-07"),
        (NEW_YORK, "2026-11-01T16:59:59Z", "2026-10-31"),
        (NEW_YORK, "2026-11-01T17:00:00Z", "2026-11-01"),
    ],
)
def test_a_night_goes_from_noon_to_noon_by_the_labs_clock(night: Rows, zone: str, at: str, evening: str) -> None:
    set_time_zone(night.engine, "berlin", zone, by="a test")
    received(night.engine, datetime.fromisoformat(at))
    day = date.fromisoformat(evening)
    for asked in (day - timedelta(days=1), day, day + timedelta(days=1)):
        assert len(read_night(night.engine, MORNING, asked).batches) == (asked == day)


def test_a_batch_is_of_the_night_that_its_report_names(night: Rows) -> None:
    night.slide(0, {"Normal": 8})
    set_time_zone(night.engine, "berlin", TOKYO, by="a test")
    received(night.engine, datetime(2026, 11, 23, 3, tzinfo=UTC))
    with transaction(night.engine) as session:
        report = read_report(session, night.batch_key)
    assert (report.night, read_night(night.engine, MORNING, report.night).batches[0].batch_id) == (EVENING, "night-1")


def test_labs_of_several_zones_have_each_their_own_night(engine: Engine) -> None:
    for lab, zone in (("boston", NEW_YORK), ("tokyo", TOKYO), ("osaka", TOKYO)):
        set_time_zone(engine, lab, zone, by="a test")
    # At noon of the 24th in Tokyo; it is the evening of the 23rd in Boston.
    another(engine, "tokyo", "of-the-23rd", datetime(2026, 11, 24, 2, 59, tzinfo=UTC))
    another(engine, "tokyo", "of-the-24th", datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    another(engine, "boston", "of-the-23rd", datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    asked = read_night(engine, MORNING, EVENING)
    assert [str(batch) for batch in asked.batches] == ["boston/of-the-23rd", "tokyo/of-the-23rd"]
    assert told(asked)["night"] == ["2026-11-23, noon to noon by each lab's clock: complete"]
    # 02:00 in Boston, 16:00 in Tokyo: the last night is of one evening. At 08:00 of the 25th in Tokyo it is not.
    assert read_night(engine, MORNING).batches == asked.batches
    later = read_night(engine, datetime(2026, 11, 24, 23, tzinfo=UTC))
    assert [str(batch) for batch in later.batches] == ["boston/of-the-23rd", "tokyo/of-the-24th"]
    assert told(later)["night"] == [
        "2026-11-23 at boston, 2026-11-24 at osaka and tokyo, noon to noon by each lab's clock: complete"
    ]


def test_a_night_in_which_nothing_came_is_not_complete(engine: Engine) -> None:
    assert told(read_night(engine, MORNING))["night"] == ["no lab is on record: nothing was received"]
    set_time_zone(engine, "berlin", BERLIN, by="a test")
    found = read_night(engine, MORNING)
    assert not found.is_complete
    assert told(found)["night"] == ["2026-11-23, noon to noon by the clock of Europe/Berlin: nothing was received"]


def test_a_lab_that_sent_each_night_and_not_in_this_one_is_named(engine: Engine) -> None:
    for before in (1, 2, 3):
        another(engine, "each-night", f"n-{before}", RECEIVED - timedelta(days=before))
        another(engine, "also-now", f"n-{before}", RECEIVED - timedelta(days=before))
        another(engine, "twice-once", f"n-{before}", RECEIVED - timedelta(days=1 + (before > 2)))
    another(engine, "also-now", "now", RECEIVED)
    found = read_night(engine, MORNING)
    assert found.silent == ("each-night",)
    assert "nothing from each-night" in told(found)["batches"][0]
    assert found.is_complete, "nobody knows whether it should have sent"


def test_a_lab_is_silent_by_its_own_nights(engine: Engine) -> None:
    set_time_zone(engine, "tokyo", TOKYO, by="a test")
    # In UTC these are of two nights.
    for at in ("2026-11-20T02:00Z", "2026-11-20T04:00Z", "2026-11-21T14:00Z", "2026-11-22T14:00Z"):
        another(engine, "tokyo", at[8:13].lower(), datetime.fromisoformat(at))
    assert read_night(engine, MORNING, EVENING).silent == ("tokyo",)


@pytest.mark.parametrize(
    ("zone", "now", "evening"),
    [
        *(("UTC", at, 23) for at in ("2026-11-24T07:00Z", "2026-11-24T15:00Z", "2026-11-24T23:30Z")),
        ("UTC", "2026-11-25T00:30Z", 24),
        (BERLIN, "2026-11-24T23:30Z", 24),
        (NEW_YORK, "2026-11-25T04:30Z", 23),
        (TOKYO, "2026-11-24T14:30Z", 23),
        (TOKYO, "2026-11-24T15:30Z", 24),
    ],
)
def test_last_night_is_the_one_that_ended_or_is_ending(engine: Engine, zone: str, now: str, evening: int) -> None:
    set_time_zone(engine, "berlin", zone, by="a test")
    found = read_night(engine, datetime.fromisoformat(now))
    assert found.nights == (LabNight("berlin", zone, date(2026, 11, evening)),)
