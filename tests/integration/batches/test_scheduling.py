"""Which slide a worker takes next: urgent batches, the labs' turns, windows, pauses, and what was cancelled."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from services.analysis.leases import claim
from services.batches.cancelling import NotCancellable, cancel_batch
from services.batches.closing import close_batch
from services.batches.due import publish_due, sweep_database
from services.batches.night import read_night
from services.batches.pausing import NotPausable, pause_batch, pause_lab, resume_batch, resume_lab
from services.batches.progress import batch_progress, count_work
from services.batches.requeue import NothingToRequeue, requeue
from services.batches.voiding import void_batch
from services.database.models import Analysis
from services.database.moves import move
from services.database.session import transaction
from services.database.states import BatchState, SlideMove
from services.intake.labs import UnusableWindow, labs, set_time_zone, set_window
from services.reporting.reading import read_report
from services.storage import ObjectStore
from tests.integration.analysis.slides import DOCUMENT, Hints
from tests.integration.batches.waiting_labs import RECEIVED, Workers, send, take

BY = {"by": "anna", "why": "wrong microscope"}


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """The usual one, with a release whose reports can be written."""
    with transaction(engine) as session:
        session.execute(text("update model_release set document = cast(:d as jsonb)"), {"d": json.dumps(DOCUMENT)})
    return engine


def states(engine: Engine) -> dict[str, int]:
    with transaction(engine) as session:
        return dict(session.execute(text("select state, count(*) from analysis group by 1")).all())


def audited(engine: Engine) -> list[tuple[str, dict[str, object]]]:
    with transaction(engine) as session:
        return [
            (kind, detail) for kind, detail in session.execute(text("select kind, detail from audit_event order by id"))
        ]


def outstanding(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.execute(text("select coalesce(sum(slides), 0) from operations.outstanding")).scalar_one())


def around_now(zone: str, begins: float, ends: float) -> str:
    """A window that begins and ends so many hours from now by the clock of `zone`, which has no summer time."""
    offset = {"UTC": 0.0, "Asia/Tokyo": 9.0}[zone]
    now = datetime.now(UTC) + timedelta(hours=offset)
    return f"{now + timedelta(hours=begins):%H:%M}-{now + timedelta(hours=ends):%H:%M}"


def test_labs_take_turns_and_a_batch_goes_in_the_order_of_its_manifest(engine: Engine) -> None:
    send(engine, "large", 4)
    send(engine, "small", 2, minute=5)
    send(engine, "large", 1, "second", minute=1)
    workers = Workers(engine, 1)
    workers.work("large/second", 1)
    assert list(workers.ended) == [
        *("large/night/0", "small/night/0", "large/night/1", "small/night/1", "large/night/2", "large/night/3"),
        "large/second/0",
    ]


def test_the_lab_of_which_the_fewest_slides_run_is_next(engine: Engine) -> None:
    send(engine, "large", 9)
    assert [take(engine) for _ in range(3)] == ["large/night/0", "large/night/1", "large/night/2"]
    send(engine, "small", 3, minute=5)
    assert [take(engine) for _ in range(4)] == ["small/night/0", "small/night/1", "small/night/2", "large/night/3"]


def test_an_urgent_batch_passes_all_that_wait_and_the_urgent_take_turns(engine: Engine) -> None:
    send(engine, "large", 3)
    send(engine, "large", 2, "late", minute=5, urgent=True)
    send(engine, "small", 1, minute=6, urgent=True)
    assert [take(engine) for _ in range(4)] == ["large/late/0", "small/night/0", "large/late/1", "large/night/0"]


def test_two_workers_that_ask_at_once_take_different_slides_and_none_waits_for_a_hung_one(engine: Engine) -> None:
    send(engine, "large", 40)
    with engine.connect() as hung:
        hung.execute(text("select from analysis order by id limit 1 for update"))
        taken: list[int] = []

        def work() -> None:
            while (lease := claim(engine, 60)) is not None:
                taken.append(lease.analysis_id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(taken) == len(set(taken)) == 39
    assert take(engine) == "large/night/0"


def test_a_small_lab_beside_a_large_one_and_an_urgent_batch(engine: Engine) -> None:
    """Simulated minutes, the real claims: `pytest -s` prints the figures of docs/operations.md."""
    send(engine, "small", 5)
    alone = Workers(engine, 4).work("small/night", 5)
    send(engine, "large", 500)
    workers = Workers(engine, 4)
    sent = workers.work("large/night", 10)
    send(engine, "small", 5, "second", minute=5)
    beside = workers.work("small/second", 5) - sent
    asked = workers.now
    send(engine, "large", 5, "urgent", minute=9, urgent=True)
    workers.work("large/urgent", 5)
    begun = [workers.ended[f"large/urgent/{n}"][0] - asked for n in range(5)]
    print(f"\nalone {alone:.0f} s, beside 500 {beside:.0f} s; urgent after {begun[0]:.0f} to {begun[-1]:.0f} s")  # noqa: T201 - the figures
    assert beside <= 2.5 * alone
    assert begun[0] <= 90


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
@pytest.mark.parametrize(
    ("begins", "ends", "starts"),
    [(-1, 1, True), (1, 2, False), (-2, -1, False), (1, -1, False), (-1, -2, True), (2, 1, True)],
)
def test_slides_are_started_within_the_labs_window_by_its_clock(
    engine: Engine, zone: str, begins: float, ends: float, starts: bool
) -> None:
    batch = send(engine, "tokyo", 2)
    set_time_zone(engine, "tokyo", zone, by="anna")
    window = around_now(zone, begins, ends)
    assert set_window(engine, "tokyo", window, by="anna") == "always"
    assert outstanding(engine) == (2 if starts else 0)
    assert publish_due(engine, Hints()) == (2 if starts else 0)
    held = batch_progress(engine, batch).holds
    assert held == (None if starts else f"slides of lab tokyo are started from {window} by its clock")
    assert (take(engine) is not None) is starts
    send(engine, "tokyo", 1, "urgent", urgent=True)
    assert take(engine) == "tokyo/urgent/0"
    assert set_window(engine, "tokyo", "always", by="anna") == window
    assert take(engine) is not None
    assert audited(engine)[-1] == (
        "window_set", {"lab": "tokyo", "window": "always", "before": window, "by": "anna"}
    )  # fmt: skip


@pytest.mark.parametrize("window", ["20:00", "20-06", "24:30-06:00", "20:00-20:00", "", "20:00-06:00+01:00"])
def test_what_is_no_window_is_refused(engine: Engine, window: str) -> None:
    with pytest.raises(UnusableWindow, match="20:00-06:00"):
        set_window(engine, "berlin", window, by="anna")
    assert labs(engine) == []


def test_a_paused_lab_starts_nothing_and_another_goes_on(engine: Engine) -> None:
    paused = send(engine, "berlin", 2)
    send(engine, "oslo", 1, minute=5)
    assert take(engine) == "berlin/night/0"
    pause_lab(engine, "berlin", **BY)
    send(engine, "berlin", 1, "urgent", urgent=True)
    assert take(engine) == "oslo/night/0"
    assert take(engine) is None
    assert outstanding(engine) == 2, "what runs"
    assert count_work(engine)["held"] == {"lab_paused": 2}
    assert "by anna: wrong microscope; `morphbatch resume berlin`" in (batch_progress(engine, paused).holds or "")
    lines = list(read_night(engine, RECEIVED, RECEIVED.date()).lines())
    assert ("batches", "3 (1 urgent) of 2 labs: 3 not ended") in lines
    assert ("missing", "berlin/night: 2 slides not ended, the lab is paused") in lines
    assert any("`morphbatch resume berlin`" in words for label, words in lines if label == "do")
    with pytest.raises(NotPausable, match="by anna: wrong microscope"):
        pause_lab(engine, "berlin", **BY)
    resume_lab(engine, "berlin", by="ben")
    assert take(engine) == "berlin/urgent/0"
    assert audited(engine) == [
        ("lab_paused", {"lab": "berlin", **BY}),
        ("lab_resumed", {"lab": "berlin", "by": "ben", "why": None}),
    ]
    for wrong in ("berlin", "rome"):
        with pytest.raises(NotPausable):
            resume_lab(engine, wrong, by="ben")


def test_a_paused_batch_lets_the_next_of_its_lab_pass(engine: Engine) -> None:
    first = send(engine, "berlin", 1)
    send(engine, "berlin", 1, "second", minute=5)
    pause_batch(engine, first, **BY)
    assert [take(engine), take(engine)] == ["berlin/second/0", None]
    assert "`morphbatch resume berlin night`" in (batch_progress(engine, first).holds or "")
    resume_batch(engine, first, by="anna")
    with pytest.raises(NotPausable):
        resume_batch(engine, first, by="anna")
    assert take(engine) == "berlin/night/0"


def test_a_cancelled_batch_ends_what_runs_and_starts_nothing_more(engine: Engine, empty_bucket: ObjectStore) -> None:
    batch = send(engine, "berlin", 4)
    ended, given_back = claim(engine, 60), claim(engine, 60)
    assert ended is not None
    assert given_back is not None
    assert cancel_batch(engine, batch, **BY) == 2
    assert take(engine) is None
    assert states(engine) == {"cancelled": 2, "running": 2}
    with transaction(engine) as session:
        move(session, SlideMove.FINISH, Analysis.id == ended.analysis_id)
        move(session, SlideMove.GIVE_BACK, Analysis.id == given_back.analysis_id, publish_at=text("now()"))
    assert (take(engine), outstanding(engine)) == (None, 0)
    hints = Hints()
    sweep_database(engine, hints, republish_s=60)
    assert states(engine) == {"cancelled": 3, "done": 1}
    assert hints.sent == [("close", batch)]
    assert close_batch(engine, empty_bucket, batch) is BatchState.CANCELLED
    with transaction(engine) as session:
        report = read_report(session, batch)
    assert report.state is BatchState.CANCELLED
    assert report.summary.slides_by_state == {"cancelled": 3, "done": 1}
    assert {slide.detail for slide in report.slides} == {None, "cancelled by anna: wrong microscope"}
    assert batch_progress(engine, batch).is_closed
    found = read_night(engine, RECEIVED, RECEIVED.date())
    assert found.is_complete, "a person has decided it"
    assert ("batches", "1 of 1 lab: 1 cancelled") in found.lines()
    assert ("slides", "4: 1 done, 3 cancelled") in found.lines()
    assert ("batch_cancelled", {**BY, "slides": 2}) in audited(engine)
    for again in (cancel_batch, pause_batch):
        with pytest.raises((NotCancellable, NotPausable)):
            again(engine, batch, **BY)
    with pytest.raises(NothingToRequeue, match="by anna: wrong microscope"):
        requeue(engine, batch, ["0"], **BY)


def test_a_cancelled_batch_may_be_voided_and_stays_cancelled(engine: Engine, empty_bucket: ObjectStore) -> None:
    batch = send(engine, "berlin", 1)
    cancel_batch(engine, batch, **BY)
    assert close_batch(engine, empty_bucket, batch) is BatchState.CANCELLED
    void_batch(engine, batch, **BY)
    assert close_batch(engine, empty_bucket, batch) is BatchState.CANCELLED


def test_a_batch_that_has_ended_is_not_cancelled(engine: Engine) -> None:
    batch = send(engine, "berlin", 1)
    Workers(engine, 1).work("berlin/night", 1)
    with pytest.raises(NotCancellable, match="void it"):
        cancel_batch(engine, batch, **BY)
