"""How many workers are wanted now: the rules that may scale them, and how KEDA and Kubernetes follow one.

`ByForecast` is `operations.workers_wanted` of `migrations/views/operations.sql`; a test holds both to the same answers.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import time
from typing import Final, Protocol

from services.capacity.nights import DAY_S, after_noon

POLL_S: Final = 15.0
"""`pollingInterval` of deploy/kubernetes/base/scaling.yaml."""
_STABILISE_S: Final = 120.0
_COOLDOWN_S: Final = 300.0
_FASTEST: Final = 2.0  # Kubernetes' default: up to twice as many, or 4 more, in 15 s
_MORE: Final = 4
_TOLERANCE: Final = 0.1  # Kubernetes' default: a tenth more or less changes nothing
_RESERVE: Final = 0.8
AT_ONCE_S: Final = 600.0
"""Urgent slides, and those of a night that has not ended in time, are done in so many seconds."""
_SLIDES_A_WORKER: Final = 4


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What is to be done at a moment, running slides among it, in seconds after a noon; and of it what cannot wait.

    `slides_at_once`, `fields_at_once`: of slides that are urgent, or late. `fields_per_s` is what one worker did
    lately; None: nothing has been measured yet.
    """

    now: float
    slides: int
    fields: int
    slides_at_once: int
    fields_at_once: int
    fields_per_s: float | None


class Rule(Protocol):
    """How many workers are wanted."""

    def wanted(self, work: Outstanding) -> int:
        """Of what is outstanding alone."""

    def last_due(self, now: float) -> float:
        """Slides that were asked for before are late; minus infinity: the rule knows no hour."""


@dataclass(frozen=True, slots=True)
class Always:
    """So many, day and night."""

    workers: int

    def wanted(self, work: Outstanding) -> int:
        """So many."""
        del work
        return self.workers

    def last_due(self, now: float) -> float:
        """It knows no hour."""
        del now
        return -math.inf


@dataclass(frozen=True, slots=True)
class BySlides:
    """One for so many slides outstanding."""

    most: int
    each: int = _SLIDES_A_WORKER

    def wanted(self, work: Outstanding) -> int:
        """Whole workers, at most `most`."""
        return min(self.most, -(-work.slides // self.each))

    def last_due(self, now: float) -> float:
        """It knows no hour."""
        del now
        return -math.inf


@dataclass(frozen=True, slots=True)
class ByForecast:
    """As few as end all work by the next `finish_by`; what is urgent or late within minutes."""

    most: int
    finish_by: time

    def wanted(self, work: Outstanding) -> int:
        """By what one worker does, with a fifth of the time that is left in reserve; no more than slides."""
        left = (after_noon(self.finish_by) - work.now) % DAY_S or DAY_S
        at_once = _ending(work.slides_at_once, work.fields_at_once, AT_ONCE_S, work)
        return min(self.most, work.slides, max(at_once, _ending(work.slides, work.fields, left * _RESERVE, work)))

    def last_due(self, now: float) -> float:
        """The last time at which a night should have ended."""
        due = after_noon(self.finish_by)
        return due + (now - due) // DAY_S * DAY_S


def _ending(slides: int, fields: int, seconds: float, work: Outstanding) -> int:
    """Workers that do so much in so many seconds."""
    if work.fields_per_s is None:
        return -(-slides // _SLIDES_A_WORKER)
    return max(math.ceil(fields / (work.fields_per_s * seconds) - 1e-9), 1 if slides else 0)


@dataclass(slots=True)
class Autoscaler:
    """KEDA from 0 to 1 and back, and Kubernetes' autoscaler above, as deploy/kubernetes/base/scaling.yaml sets them."""

    rule: Rule
    replicas: int = 0
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _active_at: float = -math.inf

    def follow(self, work: Outstanding) -> int:
        """The replicas from now on; called every `POLL_S`."""
        if isinstance(self.rule, Always):
            self.replicas = self.rule.workers
            return self.replicas
        wanted = self.rule.wanted(work)
        if wanted > 0:
            self._active_at = work.now
        elif work.now - self._active_at >= _COOLDOWN_S:
            self._asked.clear()
            self.replicas = 0
            return 0
        if self.replicas == 0:
            self.replicas = min(wanted, 1)
            return self.replicas
        self._asked.append((work.now, self._allowed(wanted)))
        while self._asked[0][0] <= work.now - _STABILISE_S:
            self._asked.popleft()
        # What was asked for lately keeps workers that are no longer wanted.
        self.replicas = max(self._asked[-1][1], min(self.replicas, max(count for _, count in self._asked)))
        return self.replicas

    def _allowed(self, wanted: int) -> int:
        if abs(wanted / self.replicas - 1) <= _TOLERANCE:
            return self.replicas
        return max(1, min(wanted, max(math.ceil(self.replicas * _FASTEST), self.replicas + _MORE)))
