"""How a test waits: for an event, never for a time."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 60, what: str = "", *, every_s: float = 0.02) -> None:
    """Wait until the condition holds; fails, naming `what` was waited for, if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(every_s)
