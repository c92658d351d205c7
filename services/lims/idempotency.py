"""A change that is asked for twice under one key is made once, and answered twice alike."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine

from services.database.session import transaction
from services.errors import PermanentError, TransientError
from services.lims.queries import begin_request, end_request, forget_old_requests, request_row

KEPT_HOURS: Final = 24
_UNANSWERED_MINUTES: Final = 5  # a process that ended while it answered

Answer = tuple[int, dict[str, Any]]


class KeyReused(PermanentError):
    """The idempotency key belongs to another request."""

    reason = "idempotency_key_reused"


class RequestUnderWay(TransientError):
    """A request with this key is being answered now."""

    reason = "request_under_way"


def answer_once(engine: Engine, lab: str, key: str | None, fingerprint: str, answer: Callable[[], Answer]) -> Answer:
    """What `answer` gives: status and document. Under a key that was used for the same request, what it gave then.

    A request that fails keeps no key: it may be sent again. Without a key it is answered each time.

    Raises:
        KeyReused: the key was used for a request of another `fingerprint` within 24 hours.
        RequestUnderWay: the first one with this key is not answered yet.
    """
    if key is None:
        return answer()
    with transaction(engine) as session:
        forget_old_requests(session, lab, KEPT_HOURS)
        mine = begin_request(session, lab, key, fingerprint, _UNANSWERED_MINUTES)
        before = None if mine else request_row(session, lab, key)
    if not mine:
        if before is not None and before.fingerprint != fingerprint:
            raise KeyReused("this Idempotency-Key was used for another request: use a new one for each change")
        if before is None or before.status is None or before.answer is None:
            raise RequestUnderWay("a request with this Idempotency-Key is being answered: send it again in a moment")
        return before.status, before.answer
    done: Answer | None = None
    try:
        done = answer()
    finally:
        with transaction(engine) as session:
            end_request(session, lab, key, *(done or (None, None)))
    return done
