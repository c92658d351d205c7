"""Real processes broken in mid-batch. Each test ends with the batch complete, no cell lost and none twice."""

import http.client
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from sqlalchemy import text

from services.dispatch import SLIDES, connect_publisher
from services.intake.uploads import sweep_incoming
from tests.conftest import Stack
from tests.drawn_night import Night
from tests.places import CHECKOUT
from tests.waiting import wait_until


def in_mid_batch(night: Night) -> None:
    """Wait until some slides are done or running, and some are not."""
    wait_until(lambda: night.slides("running") > 0, 60, "a slide running")
    assert night.slides("queued", "running") > 0


def stopped_in_mid_slide(night: Night, processes: list[psutil.Process]) -> list[int]:
    """Stop the processes (SIGSTOP) at a moment when slides run; their analyses. What is killed then was at work."""
    stopped: list[int] = []

    def stop_at_work() -> bool:
        wait_until(night.at_work, what="a slide running")
        for process in processes:
            process.suspend()
        stopped.extend(night.at_work())
        if not stopped:
            for process in processes:
                process.resume()
        return bool(stopped)

    wait_until(stop_at_work)
    return stopped


def pool_of(stack: Stack) -> list[psutil.Process]:
    """The processes in which the worker analyses slides."""
    return psutil.Process(stack.pid("worker")).children(recursive=True)


def test_a_worker_killed_in_mid_slide(night: Night, stack: Stack) -> None:
    night.upload()
    interrupted = stopped_in_mid_slide(night, pool_of(stack))
    stack.kill("worker")
    stack.wait_until_ready("worker")
    night.finish()
    assert [night.attempts()[analysis_id] for analysis_id in interrupted] == [2] * len(interrupted)


def test_a_pool_process_killed_in_mid_slide(night: Night, stack: Stack) -> None:
    night.upload()
    pool = pool_of(stack)
    interrupted = stopped_in_mid_slide(night, pool)
    for process in pool:
        process.kill()
    night.finish()
    assert [night.attempts()[analysis_id] for analysis_id in interrupted] == [2] * len(interrupted)


def test_redis_flushed_in_mid_batch(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    broker = redis.Redis.from_url(stack.settings.broker_url)
    assert broker.llen(SLIDES) > 0, "nothing is lost"
    assert broker.flushall()
    night.finish()


def test_every_message_delivered_several_times(night: Night, stack: Stack) -> None:
    night.upload()
    publisher = connect_publisher(stack.settings.broker_url)
    for _ in range(4):
        in_mid_batch(night)
        for analysis_id in night.analysis_ids():
            publisher.analyse_slide(analysis_id)
        publisher.intake_batch(night.lab, night.batch)
    night.finish()
    begun = night.begun()
    for analysis_id in night.analysis_ids():
        publisher.analyse_slide(analysis_id)
    broker = redis.Redis.from_url(stack.settings.broker_url)
    wait_until(lambda: not broker.llen(SLIDES) and not broker.hlen("unacked"), what="every message taken")
    night.finish()
    assert night.begun() == begun
    assert set(night.attempts().values()) == {1}


def test_the_same_batch_uploaded_twice(night: Night) -> None:
    night.upload()
    in_mid_batch(night)
    night.upload()
    night.finish()
    begun = night.begun()
    night.upload()
    assert [swept for swept in sweep_incoming(night.engine, night.store) if swept.analysis_ids] == []
    night.finish()
    assert night.begun() == begun


def wait_for_tries(night: Night, count: int) -> None:
    """Wait until slides of the night were begun `count` times from now on."""
    before, begun = set(night.begun().items()), set()

    def tried_often() -> bool:
        begun.update(night.begun().items() - before)
        return len(begun) >= count

    wait_until(tried_often, 120, f"{count} tries")


def test_triton_stopped_for_many_tries(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    stack.stop("triton")
    try:
        wait_for_tries(night, 5 * stack.settings.max_attempts)  # of five slides
        assert night.state() == "analysing"
        assert night.slides("quarantined") == 0
    finally:
        stack.start("triton")
    night.finish()
    assert set(night.attempts().values()) == {1}


def test_a_model_of_triton_killed_in_mid_batch(night: Night, stack: Stack) -> None:
    """Triton goes on with the others, calls itself ready, and fails every request."""
    night.upload()
    in_mid_batch(night)
    triton = stack.pid("triton")
    stub = next(p for p in psutil.Process(triton).children() if "efficientnetv2_s" in " ".join(p.cmdline()))
    stub.kill()
    wait_until(lambda: stack.pid("triton") not in (triton, None), what="Triton started again")
    assert night.slides("quarantined") == 0
    night.finish()
    assert set(night.attempts().values()) == {1}


def wait_for_a_commit(night: Night) -> dict[int, datetime]:
    """Hold up the transaction in which a slide ends, until Postgres goes; the analyses that run."""
    in_mid_batch(night)
    connection = night.engine.connect()
    connection.execute(text("select id from batch where batch_code = :b for update"), {"b": night.batch}).one()

    def somebody_waits() -> bool:
        with night.engine.connect() as other:
            # By its statement: registration, asked for again, may wait for the row too, and the slide behind it.
            waiting = text(
                "select count(*) from pg_stat_activity"
                " where wait_event_type = 'Lock' and query ~ '^SELECT batch.id\\s+FROM'"
            )
            return other.execute(waiting).scalar_one() > 0

    wait_until(somebody_waits, what="a slide about to end")
    connection.detach()  # it goes with the server
    return night.at_work()


def end_of_a_commit(night: Night, interrupted: dict[int, datetime]) -> None:
    night.engine.dispose()
    night.finish()
    begun = night.begun()
    assert [a for a, at in interrupted.items() if begun[a] > at], "no attempt was interrupted"


def test_postgres_restarted_while_a_slide_ends(night: Night, stack: Stack) -> None:
    night.upload()
    interrupted = wait_for_a_commit(night)
    stack.stop("postgres")
    stack.start("postgres")
    end_of_a_commit(night, interrupted)


def test_postgres_killed_while_a_slide_ends(night: Night, stack: Stack) -> None:
    night.upload()
    interrupted = wait_for_a_commit(night)
    stack.kill("postgres")
    stack.wait_until_ready("postgres")
    end_of_a_commit(night, interrupted)


@contextmanager
def troubled_s3(endpoint: str) -> Iterator[tuple[str, threading.Event]]:
    """A proxy before the real object store; while the event is set it answers 503, as an overloaded store does."""
    target = urlsplit(endpoint)
    overloaded = threading.Event()

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if overloaded.is_set():
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            upstream = http.client.HTTPConnection(target.hostname or "", target.port)
            upstream.request(self.command, self.path, body, dict(self.headers))  # the Host header stays: it is signed
            answer = upstream.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data)
            upstream.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = relay  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", overloaded
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def no_own_workers(stack: Stack) -> Iterator[None]:
    """The stack's workers stand still; the test runs one of its own."""
    stack.stop("worker", "control")
    yield
    stack.start("worker", "control")


@pytest.mark.usefixtures("no_own_workers")
def test_s3_answers_503(night: Night, stack: Stack) -> None:
    with troubled_s3(stack.settings.s3_endpoint) as (endpoint, overloaded):
        log = (stack.home / "logs" / "worker-behind-proxy.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", "worker.app", "worker", "--loglevel", "info"],
            cwd=CHECKOUT, env={**stack.environment, "MORPHBATCH_S3_ENDPOINT": endpoint}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            night.upload()
            in_mid_batch(night)
            overloaded.set()
            wait_for_tries(night, 2 * stack.settings.max_attempts)
            assert night.state() == "analysing"
            overloaded.clear()
            night.finish()
            assert set(night.attempts().values()) == {1}
        finally:
            os.kill(worker.pid, signal.SIGTERM)
            worker.wait(60)
            log.close()
