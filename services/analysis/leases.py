"""Who works on a slide.

An attempt holds a lease: a random token with an expiry that a heartbeat moves forward. Whoever lost the lease (a paused
machine, a partition) can still compute, but each of its writes is fenced by the token and changes nothing.
"""

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine, func, text
from sqlalchemy.orm import Session

from services.analysis.queries import next_in_order
from services.database.models import Analysis
from services.database.moves import move
from services.database.session import transaction
from services.database.states import SlideMove
from services.errors import NOT_THE_WORKS_FAULT, OutageError, TransientError
from services.log_context import carried

log = logging.getLogger(__name__)
T = TypeVar("T")


class LeaseLost(TransientError):
    """Another worker took the slide over, because this one did not renew its lease in time. Nothing was written."""

    reason = "lease_lost"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. Seconds."""

    base_s: float
    cap_s: float
    outage_s: float

    def delay_s(self, attempt: int, error: Exception) -> float:
        """Delay after `attempt` (from 1): exponential with full jitter; flat with jitter while a dependency is down."""
        if isinstance(error, NOT_THE_WORKS_FAULT):
            return self.outage_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        return random.uniform(0.5, 1.0) * min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))  # noqa: S311


class Lease:
    """A claimed analysis; a context manager that keeps the lease alive from a thread."""

    def __init__(self, engine: Engine, analysis_id: int, token: str, attempt: int, lease_s: int) -> None:
        self.analysis_id = analysis_id
        self.token = token
        self.attempt = attempt
        self._engine = engine
        self._lease_s = lease_s
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=carried(self._renew), name=f"lease-{analysis_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def end(self, session: Session, step: SlideMove, **values: object) -> None:
        """Take the analysis out of this attempt's hands by `step`; `values` are columns set with it.

        Raises:
            LeaseLost: another worker holds it; the transaction must not commit.
        """
        held = (Analysis.id == self.analysis_id, Analysis.lease_token == self.token)
        if not move(session, step, *held, **values):
            raise LeaseLost(f"analysis {self.analysis_id}: another worker holds it now; this attempt wrote nothing")

    def check(self) -> None:
        """Raises `LeaseLost` as soon as it is known that someone else took the slide over."""
        if self._lost.is_set():
            raise LeaseLost(f"analysis {self.analysis_id}: its lease expired; another worker takes the slide over")

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                with transaction(self._engine) as session:
                    kept = session.execute(
                        text(
                            "update analysis set lease_until = now() + make_interval(secs => :lease)"
                            " where id = :id and state = 'running' and lease_token = :token returning id"
                        ),
                        {"lease": self._lease_s, "id": self.analysis_id, "token": self.token},
                    ).one_or_none()
            except OutageError as error:
                # The lease may outlive a short restart of Postgres; if not, the fenced write finds out.
                log.warning("analysis %d: lease not renewed: %s", self.analysis_id, error)
                continue
            if kept is None:
                self._lost.set()
                return


def through_outages(work: Callable[[], T], policy: RetryPolicy, patience_s: float = math.inf) -> T:
    """What `work` returns, once nothing that it depends on is down any more; it is tried for `patience_s`.

    Raises:
        OutageError, ConfigurationError: it still is.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return work()
        except NOT_THE_WORKS_FAULT as error:
            delay_s = policy.delay_s(1, error)
            if time.monotonic() + delay_s > until:
                raise
            log.warning("waiting: %s", error)
            time.sleep(delay_s)


def claim(engine: Engine, lease_s: int, analysis_id: int | None = None) -> Lease | None:
    """Take the analysis that comes next (`services.analysis.queries.next_in_order`), or the one that is named.

    `None`: there is none, or that one is not queued: it has ended, or somebody else works on it. This is what makes a
    message that is lost, late or delivered twice harmless.
    """
    token = uuid.uuid4().hex
    with transaction(engine) as session:
        if analysis_id is None and (analysis_id := next_in_order(session)) is None:
            return None
        until = func.now() + timedelta(seconds=lease_s)
        claimed = move(session, SlideMove.CLAIM, Analysis.id == analysis_id, lease_token=token, lease_until=until)
        return Lease(engine, claimed[0].id, token, claimed[0].attempts, lease_s) if claimed else None


def give_back(session: Session, lease: Lease, error: Exception, reason: str, policy: RetryPolicy) -> None:
    """Queue the slide again after a failure that may pass. An outage is no attempt."""
    lease.end(
        session,
        SlideMove.GIVE_BACK,
        reason=reason,
        detail=str(error)[:2000],
        publish_at=func.now() + timedelta(seconds=policy.delay_s(lease.attempt, error)),
        attempts=lease.attempt - int(isinstance(error, NOT_THE_WORKS_FAULT)),
    )
