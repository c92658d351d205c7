"""A message of ours reaches Celery as it was meant; anything else is dropped, logged in a line and counted."""

import inspect
import json
import logging
from base64 import b64decode
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from services.dispatch import ANALYSE_SLIDE, CLOSE_BATCH, INTAKE_BATCH
from tests.broken_messages import BROADCASTS, KEPT, QUEUED, broadcast, changed, good_message
from worker.messages import ARGUMENTS, broadcast_message, kept_message, read_or_drop, task_message

EXAMPLES = {ANALYSE_SLIDE: [7], CLOSE_BATCH: [2**63 - 1], INTAKE_BATCH: ["north", "night-1"]}


def dropped() -> dict[tuple[str, str], float]:
    """How often what was dropped, by place and reason."""
    (family,) = (metric for metric in REGISTRY.collect() if metric.name == "morphbatch_messages_dropped")
    return {
        (sample.labels["place"], sample.labels["reason"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@pytest.mark.parametrize("task", ARGUMENTS)
def test_a_message_of_ours_passes(task: str) -> None:
    sent = good_message(task, EXAMPLES.get(task, []))
    read = json.loads(task_message(json.dumps(sent).encode()))
    assert json.loads(b64decode(read["body"])) == json.loads(b64decode(sent["body"]))
    for part in ("headers", "properties"):
        assert {name: sent[part].get(name) for name in read[part]} == read[part]


def test_every_task_is_known_with_its_arguments() -> None:
    from worker.tasks import app

    tasks = {name: task for name, task in app.tasks.items() if name.startswith("morphbatch.")}
    assert tasks.keys() == ARGUMENTS.keys()
    for name, task in tasks.items():
        inspect.signature(task.run).bind(*EXAMPLES.get(name, []))


def test_what_beat_and_a_worker_publish_passes_without_their_time_limit() -> None:
    from worker.app import app

    limits = [app.conf.task_time_limit, None]
    assert limits[0], "Celery writes it into the messages of tasks that the sender knows"
    read = json.loads(task_message(json.dumps(changed("headers/timelimit", limits)).encode()))
    assert read["headers"]["timelimit"] == [None, None]


def test_when_a_message_expires_is_kept() -> None:
    sent = changed("headers/expires", "2026-11-27T16:12:24.631899+00:00")
    assert json.loads(task_message(json.dumps(sent).encode()))["headers"]["expires"] == "2026-11-27T16:12:24.631899Z"


def test_what_celery_would_take_from_elsewhere_is_left_out() -> None:
    read = json.loads(task_message(json.dumps(changed("headers/stamped_headers", 5)).encode()))
    assert "stamped_headers" not in read["headers"]


def test_a_broadcast_and_what_is_kept_pass() -> None:
    asked = json.loads(broadcast_message(json.dumps(broadcast()).encode()))
    assert json.loads(b64decode(asked["body"]))["method"] == "ping"
    kept = json.dumps([good_message(), "", "control"]).encode()
    assert kept_message(kept) == kept


@pytest.mark.parametrize(
    ("read", "kinds"), [(task_message, QUEUED), (broadcast_message, BROADCASTS), (kept_message, KEPT)]
)
def test_what_is_none_of_ours_is_dropped_logged_in_a_line_and_counted(
    read: Callable[[bytes], bytes], kinds: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    before = sum(dropped().values())
    with caplog.at_level(logging.ERROR):
        assert [name for name, raw in kinds.items() if read_or_drop(read, raw, "here") is not None] == []
    assert sum(dropped().values()) - before == len(caplog.records) == len(kinds)
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "\n" in line or len(line) > 700 or not line.startswith("dropped from here")] == []


def test_the_reasons_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    for raw in (
        b"garbage",
        b"x" * 70_000,
        json.dumps(good_message("morphbatch.of_tomorrow")).encode(),
        json.dumps(good_message(ANALYSE_SLIDE, ["Erika Mustermann"])).encode(),
    ):
        read_or_drop(task_message, raw, "there")
    reasons = {reason for place, reason in dropped() if place == "there"}
    assert reasons == {"malformed", "too_large", "unknown_task", "wrong_arguments"}
    assert "morphbatch.analyse_slide: 0: Input should be a valid integer" in caplog.text
    assert "Mustermann" not in caplog.text
