"""A night on record, as it is played again."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine

from services.capacity.errors import NightRefused
from services.capacity.nights import Slide, after_noon
from services.capacity.queries import recorded_night
from services.database.session import transaction
from tests.integration.capacity.waiting_slides import Slides

RECEIVED = datetime(2026, 11, 23, 21, 30, tzinfo=UTC)  # half past ten at night in Berlin


def test_the_slides_with_a_result_and_when_the_last_ended(engine: Engine) -> None:
    slides = Slides(engine, RECEIVED)
    slides.add(3, state="done", finished_at=RECEIVED + timedelta(minutes=5), cells=30)
    slides.add(4, state="insufficient", finished_at=RECEIVED + timedelta(minutes=7), cells=2, urgent=True)
    slides.add(5, state="quarantined", finished_at=RECEIVED + timedelta(minutes=9))
    begins = after_noon(datetime(2026, 11, 23, 22, 30).time())
    with transaction(engine) as session:
        night, ended = recorded_night(session, date(2026, 11, 23), 0.5)
        assert [slide.arrives for slide in night.slides] == [begins, begins]
        first, second = sorted(night.slides, key=lambda slide: slide.fields)
        assert (first, second) == (
            Slide(begins, first.lab, 3, 30, 1.5), Slide(begins, first.lab, 4, 2, 2.0, urgent=True)
        )  # fmt: skip
        assert ended == begins + 7 * 60
        with pytest.raises(NightRefused, match="2026-11-24"):
            recorded_night(session, date(2026, 11, 24), 0.5)
