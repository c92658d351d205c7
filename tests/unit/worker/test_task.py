"""Every task is counted as it starts and as it ends, timed, and names its work in the log."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context

import pytest
from celery import Celery
from prometheus_client import REGISTRY

from services.errors import OutageError
from services.log_context import NamesWork, bind, carried
from worker.task import Ended, MeasuredTask

log = logging.getLogger("tests.task")


def returning(how: Ended | None) -> Callable[[], object]:
    def body() -> Ended | None:
        return how

    return body


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


BODIES: dict[str, tuple[Callable[[], object], str]] = {
    "one that ends well": (returning(None), "complete"),
    "one that says so": (returning(Ended.COMPLETE), "complete"),
    "one that puts its work back": (returning(Ended.RETRIED), "retried"),
    "one that meets an outage": (raising(OutageError("Postgres is down")), "retried"),
    "one that breaks": (raising(ZeroDivisionError()), "failed"),
    "one that is ended": (raising(SystemExit()), "failed"),
}


def counted(task: str) -> dict[str, float]:
    """Started, timed, and ended by how, of one task."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"morphbatch_{name}", {"task": task, **labels}) or 0

    ended = {how.value: value("tasks_ended_total", how=how) for how in Ended}
    return {
        "started": value("tasks_started_total"),
        "timed": value("task_seconds_count"),
        **{how: count for how, count in ended.items() if count},
    }


@pytest.fixture
def app() -> Celery:
    return Celery("tests", broker="memory://", task_cls="worker.task:MeasuredTask", set_as_current=False)


@pytest.mark.parametrize("name", BODIES)
def test_a_task_is_counted_by_how_it_ended(app: Celery, name: str) -> None:
    body, how = BODIES[name]
    task = app.task(name=name)(body)
    assert isinstance(task, MeasuredTask)
    for _ in range(2):
        try:
            task.apply()
        except SystemExit:
            assert name == "one that is ended"
    assert counted(name) == {"started": 2, "timed": 2, how: 2}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the log holds, each line with the work that it names."""
    written: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(f"{record.getMessage()}{record.work}")  # type: ignore[attr-defined]

    handler = Kept()
    handler.addFilter(NamesWork())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(handler)


def test_what_a_task_binds_is_in_its_records_and_ends_with_it(app: Celery, lines: list[str]) -> None:
    @app.task(name="binds")  # type: ignore[untyped-decorator]
    def binds(number: int) -> None:
        log.info("begun")
        bind(analysis=number)
        bind(batch="lab/night", slide="a", attempt=2)
        log.info("under way")

    binds.apply(args=(7,))
    log.info("after it")
    binds.apply(args=(8,))
    assert lines == [
        "begun",
        "under way [analysis=7 attempt=2 batch=lab/night slide=a]",
        "after it",
        "begun",
        "under way [analysis=8 attempt=2 batch=lab/night slide=a]",
    ]


def test_a_thread_of_the_work_names_it_too(lines: list[str]) -> None:
    def work() -> None:
        bind(analysis=7)
        thread = threading.Thread(target=carried(lambda: log.info("read ahead")))
        thread.start()
        thread.join()

    copy_context().run(work)
    assert lines == ["read ahead [analysis=7]"]
