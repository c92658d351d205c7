"""The base of all tasks: each is timed, and counted as it starts and as it ends; its log records name its work."""

import logging
import time
from contextvars import copy_context
from enum import StrEnum
from typing import Any, Final

from celery import Task
from prometheus_client import Counter, Histogram

from services.errors import NOT_THE_WORKS_FAULT

log = logging.getLogger(__name__)

STARTED: Final = Counter("morphbatch_tasks_started", "Tasks begun.", ["task"])
ENDED: Final = Counter("morphbatch_tasks_ended", "Tasks ended, by how.", ["task", "how"])
SECONDS: Final = Histogram(
    "morphbatch_task_seconds",
    "Seconds a task took, however it ended.",
    ["task"],
    buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800),
)


class Ended(StrEnum):
    """How a task ended. `retried`: its work was put back, and is published again when it is due."""

    COMPLETE = "complete"
    RETRIED = "retried"
    FAILED = "failed"


class MeasuredTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task whose body returns how it ended; nothing means complete, and an outage that a sweep finds it again."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the body in a context of its own, so that what it binds for the log ends with it."""
        copy_context().run(self._measured, args, kwargs)

    def _measured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        STARTED.labels(self.name).inc()
        how, began = Ended.FAILED, time.perf_counter()
        try:
            how = self.run(*args, **kwargs) or Ended.COMPLETE
        except NOT_THE_WORKS_FAULT:
            how = Ended.RETRIED
            raise
        finally:
            SECONDS.labels(self.name).observe(time.perf_counter() - began)
            ENDED.labels(self.name, how).inc()
