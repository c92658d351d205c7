"""What answers late at a worker's start is waited for, as what is down."""

from types import SimpleNamespace

import pytest

from services.errors import OutageError, TransientError
from services.inference.errors import InferenceTimeout
from worker import lifecycle


@pytest.mark.parametrize("late", [OutageError("it is down"), InferenceTimeout("it did not answer in time")])
def test_what_answers_late_is_waited_for(late: TransientError, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [late, None]

    def ask(_: object) -> None:
        if answer := answers.pop(0):
            raise answer

    connections = SimpleNamespace(engine=None, store=SimpleNamespace(stat=lambda _: None), close=lambda: None)
    monkeypatch.setattr(lifecycle, "Connections", lambda: connections)
    monkeypatch.setattr(lifecycle, "require_head", ask)
    monkeypatch.setattr(lifecycle.metrics, "require_folder", lambda _: None)
    monkeypatch.setattr(lifecycle.time, "sleep", lambda _: None)
    lifecycle.preflight(takes_slides=False)
    assert not answers
