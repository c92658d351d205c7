"""Publishes work to the broker. A message is a hint: the database decides, and the sweep repairs what was lost.

Hints for slides are all alike: whoever takes one starts the slide that comes next by then. So their order does not
matter, nor how long they have waited, and it is enough that there are as many as slides, or as workers soon take.

Task and queue names stand here, since both the publishers and the worker need them. Slides wait in a queue of their
own, so that a long night's backlog never delays the sweeps.
"""

from typing import Final
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError
from redis import ConnectionPool
from redis.exceptions import RedisError

from services.errors import ConfigurationError, OutageError

INTAKE_BATCH: Final = "morphbatch.intake_batch"
ANALYSE_SLIDE: Final = "morphbatch.analyse_slide"
CLOSE_BATCH: Final = "morphbatch.close_batch"
SWEEP_INCOMING: Final = "morphbatch.sweep_incoming"
SWEEP_DATABASE: Final = "morphbatch.sweep_database"
SEND_DELIVERIES: Final = "morphbatch.send_deliveries"
MAKE_PARTITIONS: Final = "morphbatch.make_partitions"

SLIDES: Final = "slides"
CONTROL: Final = "control"


# Redis that answers and refuses (out of memory, a replica after a failover, an ACL) comes through kombu as it is.
_FAILURES: Final = (OperationalError, RedisError)


class BrokerUnavailable(OutageError):
    """Redis cannot be reached, or takes no writes. Nothing is lost: the sweep publishes again from the database."""

    reason = "broker_unavailable"


class Publisher:
    """Sends task messages by name; arguments are ids only."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def intake_batch(self, lab: str, batch_id: str) -> None:
        """Announce that `incoming/<lab>/<batch_id>/manifest.json` is there."""
        self._send(CONTROL, INTAKE_BATCH, lab, batch_id)

    def analyse_slide(self, analysis_id: int) -> None:
        """Announce that a slide waits. It is named for workers of the version before, which take that very one."""
        self._send(SLIDES, ANALYSE_SLIDE, analysis_id)

    def slides_announced(self) -> int:
        """How many such messages wait for a worker.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses.
        """
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                return int(producer.channel.queue_declare(SLIDES).message_count)
        except _FAILURES as error:
            raise BrokerUnavailable(f"could not ask how many messages wait: {error}") from error

    def close_batch(self, batch_key: int) -> None:
        """Announce that the last slide of a batch ended."""
        self._send(CONTROL, CLOSE_BATCH, batch_key)

    def worker_answers(self, node: str) -> bool:
        """Whether the worker called `node` answers a ping within a second.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses.
        """
        try:
            return bool(self._app.control.ping(destination=[node], timeout=1.0, limit=1))
        except _FAILURES as error:
            raise BrokerUnavailable(f"could not ask worker {node}: {error}") from error

    def queues_in_work(self) -> dict[str, list[str]]:
        """The queues that each worker answering within two seconds takes messages from, by the worker's name.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses.
        """
        try:
            answers = self._app.control.inspect(timeout=2.0).active_queues() or {}
        except _FAILURES as error:
            raise BrokerUnavailable(f"could not ask the workers: {error}") from error
        return {node: [queue["name"] for queue in queues] for node, queues in answers.items()}

    def _send(self, queue: str, name: str, *args: int | str) -> None:
        try:
            self._app.send_task(name, args=args, queue=queue, retry=False)
        except _FAILURES as error:
            raise BrokerUnavailable(f"could not publish {name}{args}: {error}") from error


def connect_publisher(broker_url: str) -> Publisher:
    """A publisher for a process that is not a worker (the HTTP service, the command line).

    Raises:
        ConfigurationError: the URL is malformed, or not of Redis.
    """
    try:
        ConnectionPool.from_url(broker_url)
        int(urlsplit(broker_url).path.strip("/") or 0)
    except ValueError as error:  # the URL itself stays out of the message: it holds a password
        raise ConfigurationError("MORPHBATCH_BROKER_URL is not like redis://:PASSWORD@HOST:PORT/0") from error
    app = Celery("morphbatch", broker=broker_url, set_as_current=False)
    # It takes no messages, so it has none to acknowledge; and it leaves those of dead workers to the living ones.
    app.conf.broker_transport_options = {"socket_connect_timeout": 3, "socket_timeout": 5, "ack_emulation": False}
    return Publisher(app)
