"""A line of the log, for people and as JSON: what happened, and of which work."""

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from services.log_context import LogFormat, bind, write_as

Written = tuple[logging.Logger, io.StringIO]


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    """A logger that writes in the format asked for."""
    log, stream = logging.getLogger("tests.log_context"), io.StringIO()
    handler = logging.StreamHandler(stream)
    write_as(request.param, [handler])
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield log, stream
    log.removeHandler(handler)


def of_a_slide(work: Any) -> None:
    """Run `work` as a task does that has bound its slide."""

    def bound() -> None:
        bind(batch="berlin/night-1", slide="s-1", analysis=7, attempt=2, release="r1")
        work()

    copy_context().run(bound)


def formats(*names: LogFormat) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("written", names, indirect=True)


@formats("json")
def test_json_names_the_work_and_is_one_line_with_a_traceback_too(written: Written) -> None:
    log, stream = written

    def fails() -> None:
        try:
            int("x")
        except ValueError:
            log.exception("field %s:\nunreadable", "a.png")

    of_a_slide(fails)
    log.info("after it")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert {name: first[name] for name in ("batch", "slide", "analysis", "attempt", "release")} == {
        "batch": "berlin/night-1", "slide": "s-1", "analysis": 7, "attempt": 2, "release": "r1"
    }  # fmt: skip
    assert (first["level"], first["message"], first["logger"]) == ("error", "field a.png:\nunreadable", log.name)
    assert "ValueError" in first["exception"]
    assert second.keys() == {"message", "level", "logger", "timestamp", "process_name"}


@formats("text")
def test_text_names_it_too(written: Written) -> None:
    log, stream = written
    of_a_slide(lambda: log.info("begun"))
    assert stream.getvalue().endswith(
        " INFO MainProcess [analysis=7 attempt=2 batch=berlin/night-1 release=r1 slide=s-1]: begun\n"
    )
