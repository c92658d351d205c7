"""A sign of life: a file that a worker touches while it consumes, and beat while it publishes; see `worker.alive`.

A ping is answered by a worker that takes no message any more. So the file is touched by the loop that takes them.
"""

from pathlib import Path
from typing import Any, Final

from celery import Celery, bootsteps
from celery.signals import after_task_publish, beat_init
from celery.worker.consumer import Consumer

SECONDS: Final = 5.0


def begin(file: Path | None) -> None:
    """Forget the heartbeat of an earlier run: this process takes no work yet."""
    if file is not None:
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)


def install(app: Celery, file: Path) -> None:
    """Have a worker of `app` touch the file while it consumes, and its beat with each message that it publishes."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Beats by the timer of the consumer's loop, as long as it is connected to the broker and takes messages."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Consumer) -> None:
            file.touch()
            self.entry = consumer.timer.call_repeatedly(SECONDS, file.touch)

        def stop(self, consumer: Consumer) -> None:  # at the end, and whenever the broker is lost
            del consumer
            self.entry.cancel()

    app.steps["consumer"].add(Heartbeat)

    def touch(**_: Any) -> None:
        file.touch()

    def beat_begins(**_: Any) -> None:
        begin(file)
        after_task_publish.connect(touch, weak=False)

    beat_init.connect(beat_begins, weak=False)
