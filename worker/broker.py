"""Celery's Redis transport, which hands on messages of ours only, and frees keys of ours that hold something else."""

from typing import Any, Final

from kombu.transport import redis

from worker.messages import broadcast_message, drop, kept_message, read_or_drop, task_message

_TO_ALL: Final = "celery.pidbox"
_SET_ASIDE: Final = ".set-aside"


class QoS(redis.QoS):
    """Keeps each message until it is acknowledged, and puts those back whose worker died."""

    def restore_by_tag(self, tag: bytes, client: Any = None, leftmost: bool = False) -> None:
        """Put the message `tag` back into its queue; forget it where it is no message."""
        with self.channel.conn_or_acquire(client) as connected:
            kept = connected.hget(self.unacked_key, tag)
            if kept is not None and read_or_drop(kept_message, kept, self.unacked_key) is None:
                self._remove_from_indices(tag).execute()
            else:
                super().restore_by_tag(tag, connected, leftmost)


class Channel(redis.Channel):
    """A connection that reads what comes over it before Celery does."""

    QoS = QoS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The one place where a queue's bytes come in.
        self.client.set_response_callback("BRPOP", self._read_task)
        self._free({self.unacked_key: b"hash", self.unacked_index_key: b"zset"})

    def queue_declare(self, queue: str | None = None, *args: Any, **options: Any) -> Any:
        """Declare a queue, once its keys hold what they should."""
        if queue:
            lists = {self._q_for_pri(queue, priority): b"list" for priority in self.priority_steps}
            tables = (self.keyprefix_queue, self.keyprefix_binding_permanent)
            self._free({**lists, **{table % (queue,): b"set" for table in tables}})
        return super().queue_declare(queue, *args, **options)

    def _read_task(self, answer: list[bytes] | None, **_: object) -> tuple[bytes, bytes] | None:
        if not answer:
            return None
        key, raw = answer
        message = read_or_drop(task_message, raw, key.decode().rsplit(self.sep, 1)[0])
        return None if message is None else (key, message)

    def _handle_message(self, client: Any, answer: list[Any]) -> dict[str, Any]:
        told: dict[str, Any] = super()._handle_message(client, answer)
        if isinstance(told["data"], bytes) and told["channel"].partition(b".")[2].startswith(_TO_ALL.encode()):
            told["data"] = read_or_drop(broadcast_message, told["data"], _TO_ALL)
        return told

    def _free(self, wanted: dict[str, bytes]) -> None:
        """Set aside what keys of ours hold that is of another type: it would be met with an error for ever."""
        with self.conn_or_acquire() as client:
            for key, kind in wanted.items():
                found = client.type(key)
                if found not in (kind, b"none"):
                    client.rename(key, key + _SET_ASIDE)
                    kept = f"a {found.decode()}, which is kept as {key + _SET_ASIDE!r}"
                    drop(key.split(self.sep)[0], "wrong_type", kept)


class Transport(redis.Transport):
    """Named in `worker.app`."""

    Channel = Channel
