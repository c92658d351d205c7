"""What beat publishes, and how often. A sweep that was not taken before the next is due is dropped."""

from typing import Any

from services.dispatch import MAKE_PARTITIONS, SEND_DELIVERIES, SWEEP_DATABASE, SWEEP_INCOMING
from services.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, Any]:
    """Celery's `beat_schedule`."""

    def every(seconds: int, task: str) -> dict[str, Any]:
        return {"task": task, "schedule": float(seconds), "options": {"expires": seconds}}

    return {
        "publish what is due": every(settings.dispatch_seconds, SWEEP_DATABASE),
        "send what waits": every(settings.dispatch_seconds, SEND_DELIVERIES),
        "list the uploads": every(settings.sweep_seconds, SWEEP_INCOMING),
        "make partitions": every(6 * 3600, MAKE_PARTITIONS),
    }
