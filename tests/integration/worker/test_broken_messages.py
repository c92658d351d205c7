"""A real worker outlives every kind of broken message on its broker, and does the good work that comes after them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from services.dispatch import CONTROL, BrokerUnavailable, Publisher, connect_publisher
from services.local.broker import redis_service
from services.local.installation import prepare_installation
from services.storage import ObjectStore
from tests.broken_messages import BROADCASTS, KEPT, OTHER_TYPES, QUEUED
from tests.integration.servers import S3Server, serving
from tests.places import CHECKOUT
from tests.waiting import wait_until

NODE = "worker@broken-messages"
PRIORITIES = [f"{CONTROL}\x06\x16{step}" for step in (3, 6, 9)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """The URL of a broker of its own."""
    installation = prepare_installation(tmp_path / "broker", "rclone", minio_available=False)
    with serving(redis_service(installation), installation):
        yield installation.environment()["MORPHBATCH_BROKER_URL"]


@pytest.fixture
def environment(broker: str, database: Engine, rclone: S3Server, empty_bucket: ObjectStore) -> dict[str, str]:
    """That of a control worker beside the test's servers."""
    settings = {
        "DATABASE_URL": database.url.render_as_string(hide_password=False),
        "BROKER_URL": broker,
        "S3_ENDPOINT": rclone.settings.s3_endpoint,
        "S3_BUCKET": empty_bucket.bucket,
        "S3_ACCESS_KEY": rclone.settings.s3_access_key,
        "S3_SECRET_KEY": rclone.settings.s3_secret_key.get_secret_value(),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MORPHBATCH_")}
    return {**inherited, **{f"MORPHBATCH_{name}": value for name, value in settings.items()}}


def test_a_worker_outlives_whatever_lies_in_redis(
    broker: str, environment: dict[str, str], empty_bucket: ObjectStore, tmp_path: Path
) -> None:
    connection = redis.Redis.from_url(broker)
    for number, kept in enumerate(KEPT.values()):
        _keep(connection, f"{number}\xff".encode("latin-1"), kept)
    log, heartbeat = tmp_path / "worker.log", tmp_path / "run" / "heartbeat"
    command = (
        sys.executable, "-m", "celery", "--app", "worker.app", "worker", "--queues", CONTROL, "--concurrency", "1",
        "--hostname", NODE, "--without-gossip", "--without-mingle", "--loglevel", "info",
    )  # fmt: skip
    with log.open("wb") as stream, subprocess.Popen(
        command, cwd=CHECKOUT, env={**environment, "MORPHBATCH_HEARTBEAT_FILE": str(heartbeat)},
        stdout=stream, stderr=stream,
    ) as worker:  # fmt: skip
        try:
            publisher = connect_publisher(broker)
            wait_until(lambda: publisher.worker_answers(NODE), 120, "the worker answers")
            first_beat = heartbeat.stat().st_mtime
            _put_everything(connection)
            _prove_work(publisher, empty_bucket, "night-1")
            wait_until(lambda: not connection.exists(*PRIORITIES), what="the least urgent lists empty")
            for key in OTHER_TYPES:
                _replace(connection, key)
            wait_until(lambda: _all_set_aside(publisher, connection), what="keys of another type set aside")
            _prove_work(publisher, empty_bucket, "night-2")
            assert publisher.worker_answers(NODE)
            assert worker.poll() is None
            wait_until(lambda: heartbeat.stat().st_mtime > first_beat, what="a later heartbeat")
        finally:
            worker.terminate()
            worker.wait(60)
    said = log.read_text(errors="replace")
    lines = [line for line in said.splitlines() if " MainProcess: dropped from " in line]
    assert len(lines) == len(KEPT) + len(QUEUED) + len(PRIORITIES) + len(BROADCASTS) + len(OTHER_TYPES)
    assert "Traceback" not in said
    assert not connection.exists("unacked", "unacked_index")


def _put_everything(connection: "redis.Redis") -> None:
    for raw in QUEUED.values():
        connection.lpush(CONTROL, raw)
    for key in PRIORITIES:
        connection.lpush(key, b"garbage")
    for raw in BROADCASTS.values():
        connection.publish("/0.celery.pidbox", raw)


def _keep(connection: "redis.Redis", tag: bytes, item: bytes) -> None:
    """As if a worker had taken it long ago and died."""
    connection.hset("unacked", tag, item)
    connection.zadd("unacked_index", {tag: 1.0})


def _replace(connection: "redis.Redis", key: str) -> None:
    with connection.pipeline() as together:
        together.delete(key)
        together.set(key, "a") if key == "unacked_index" else together.zadd(key, {"a": 1.0})
        together.execute()


def _all_set_aside(publisher: Publisher, connection: "redis.Redis") -> bool:
    """Some are met only when a message comes, which is lost then."""
    with suppress(BrokerUnavailable):
        publisher.intake_batch("north", "night-1")
    return connection.exists(*(f"{key}.set-aside" for key in OTHER_TYPES)) == len(OTHER_TYPES)


def _prove_work(publisher: Publisher, store: ObjectStore, batch: str) -> None:
    """A good message is worked on: the lab is told that its manifest is none."""
    store.put(f"incoming/north/{batch}/manifest.json", b"no manifest", "application/json")
    publisher.intake_batch("north", batch)
    notice = f"results/north/{batch}/rejected.json"
    wait_until(lambda: store.stat(notice), what=notice)
    assert json.loads(store.get(notice, max_bytes=10_000))["outcome"] == "rejected"
