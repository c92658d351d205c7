"""The base of all tasks: each is timed, and counted as it starts and as it ends; its log records name its work."""

import logging
import time
from contextvars import copy_context
from enum import StrEnum
from typing import Any

from celery import Task

from services import metrics
from services.errors import NOT_THE_WORKS_FAULT

log = logging.getLogger(__name__)


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
        metrics.TASKS_STARTED.labels(self.name).inc()
        how, began = Ended.FAILED, time.perf_counter()
        try:
            how = self.run(*args, **kwargs) or Ended.COMPLETE
        except NOT_THE_WORKS_FAULT:
            how = Ended.RETRIED
            raise
        finally:
            metrics.TASK_SECONDS.labels(self.name).observe(time.perf_counter() - began)
            metrics.TASKS_ENDED.labels(self.name, how).inc()
