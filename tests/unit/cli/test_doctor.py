"""What the doctor says of a Redis, without one."""

from typing import Any

import pytest
import redis

from services.cli.doctor import Unwell, _broker_memory
from services.settings import Settings


class Played:
    """A Redis that says this of its memory."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self._memory = memory

    def info(self, section: str) -> dict[str, Any]:
        assert section == "memory"
        return self._memory

    def close(self) -> None:
        pass


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_drops_messages_is_unwell(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    played = Played({"maxmemory_policy": policy, "maxmemory": 2**28, "used_memory": 2**20})
    monkeypatch.setattr(redis.Redis, "from_url", lambda *_, **__: played)
    with pytest.raises(Unwell, match=policy):
        _broker_memory(Settings())


@pytest.mark.parametrize(("limit", "said"), [(2**28, "256 MiB allowed"), (0, "no limit")])
def test_one_that_refuses_them_is_well(monkeypatch: pytest.MonkeyPatch, limit: int, said: str) -> None:
    played = Played({"maxmemory_policy": "noeviction", "maxmemory": limit, "used_memory": 2**20})
    monkeypatch.setattr(redis.Redis, "from_url", lambda *_, **__: played)
    assert _broker_memory(Settings()) == f"1 MiB used, {said}; no message is dropped"
