"""Whether the worker or beat beside this process works: `python -m worker.alive [--ready]`; exit code 0 or 1.

For the probes of Kubernetes. It is alive if its heartbeat is young; and also without one while the broker does not
answer, since starting it again would not bring the broker back, and would end the slides under way. It is ready only
with a heartbeat: after its preflight, and while it takes work.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

FILE_VARIABLE: Final = "MORPHBATCH_HEARTBEAT_FILE"
_OLDEST_S: Final = 60.0


def heartbeat_age(file: Path) -> float | None:
    """Seconds since the last beat; None: there was none yet."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None


def _broker_answers() -> bool:
    # Asked for seldom, and slow to import.
    import redis

    from services.settings import load_settings

    client = redis.Redis.from_url(load_settings().broker_url, socket_connect_timeout=3, socket_timeout=3)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def main(*, ready: bool) -> str | None:
    """What is wrong; None: nothing."""
    age = heartbeat_age(Path(os.environ[FILE_VARIABLE]))
    if age is not None and age <= _OLDEST_S:
        return None
    said = "no heartbeat yet" if age is None else f"the last heartbeat was {age:.0f} s ago"
    if ready or _broker_answers():
        return f"{said}: it takes no work"
    return None


if __name__ == "__main__":
    sys.exit(main(ready="--ready" in sys.argv[1:]))
