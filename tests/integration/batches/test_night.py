"""A night in ten lines, from rows as the service leaves them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from services.batches.night import Night, last_evening, read_night
from services.database.models import Batch, Lab
from services.database.session import transaction
from services.database.states import BatchState, SlideState
from tests.integration.reporting.reporting_night import Night as Rows

EVENING = date(2026, 11, 23)
RECEIVED = datetime(2026, 11, 23, 20, tzinfo=UTC)


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
    found = read_night(night.engine, EVENING)
    assert found.is_complete
    assert told(found) == {
        "night": ["2026-11-23, noon to noon UTC: complete"],
        "batches": ["1 of 1 lab: 1 complete"],
        "slides": ["2: 1 done, 1 with too few cells"],
        "cells": ["203 classified, from 23 Nov 02:00 to 23 Nov 02:00 UTC"],
    }


def test_what_is_missing_is_named_with_its_reason_and_what_to_do(full: Rows) -> None:
    full.slide(4, {}, state=SlideState.QUEUED, reason="inference_unavailable")
    received(full.engine, state=BatchState.ANALYSING)
    found = read_night(full.engine, EVENING)
    assert not found.is_complete
    lines = told(found)
    assert lines["night"] == ["2026-11-23, noon to noon UTC: NOT COMPLETE"]
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
    lines = told(read_night(full.engine, EVENING))
    assert lines["batches"] == ["5 of 3 labs: 1 with quarantined slides, 1 not ended, 3 rejected"]
    assert lines["missing"][1:] == [
        "oslo/n-0: its manifest was rejected, 1 problem",
        "and 3 more batches: --json lists them",
    ]
    assert "morphbatch watch n-0 --lab oslo" in lines["do"][0]


def test_a_batch_without_a_report_is_missing(night: Rows) -> None:
    night.slide(0, {"Normal": 8})
    received(night.engine, state=BatchState.ANALYSING)
    lines = told(read_night(night.engine, EVENING))
    assert lines["missing"] == ["berlin/night-1: its slides have ended, its report is not written yet"]


@pytest.mark.parametrize(
    ("at", "evening"),
    [
        (datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC), date(2026, 11, 22)),
        (datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC), EVENING),
        (datetime(2026, 11, 24, 11, 59, 59, tzinfo=UTC), EVENING),
    ],
)
def test_a_night_goes_from_noon_to_noon(night: Rows, at: datetime, evening: date) -> None:
    received(night.engine, at)
    for asked in (evening - timedelta(days=1), evening, evening + timedelta(days=1)):
        assert len(read_night(night.engine, asked).batches) == (asked == evening)


def test_a_night_in_which_nothing_came_is_not_complete(engine: Engine) -> None:
    found = read_night(engine, EVENING)
    assert not found.is_complete
    assert told(found)["night"] == ["2026-11-23, noon to noon UTC: nothing was received"]


def test_a_lab_that_sent_each_night_and_not_in_this_one_is_named(engine: Engine) -> None:
    for before in (1, 2, 3):
        another(engine, "each-night", f"n-{before}", RECEIVED - timedelta(days=before))
        another(engine, "also-now", f"n-{before}", RECEIVED - timedelta(days=before))
        another(engine, "twice-once", f"n-{before}", RECEIVED - timedelta(days=1 + (before > 2)))
    another(engine, "also-now", "now", RECEIVED)
    found = read_night(engine, EVENING)
    assert found.silent == ("each-night",)
    assert "nothing from each-night" in told(found)["batches"][0]
    assert found.is_complete, "nobody knows whether it should have sent"


@pytest.mark.parametrize(
    ("now", "evening"),
    [("2026-11-24T07:00", 23), ("2026-11-24T15:00", 23), ("2026-11-24T23:30", 23), ("2026-11-25T00:30", 24)],
)
def test_last_night_is_the_one_that_ended_or_is_ending(now: str, evening: int) -> None:
    assert last_evening(datetime.fromisoformat(f"{now}+00:00")) == date(2026, 11, evening)
