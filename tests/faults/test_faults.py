"""Real processes broken in mid-batch. Each test ends with the batch complete, no cell lost and none twice."""

import http.client
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from services.dispatch import connect_publisher
from tests.conftest import Stack
from tests.faults.conftest import Night
from tests.places import CHECKOUT


def in_mid_batch(night: Night) -> None:
    """Wait until some slides are done or running, and some are not."""
    night.stack.wait_until(lambda: night.slides("running") > 0, 60, "a slide running")
    assert night.slides("queued", "running") > 0


def test_a_worker_killed_in_mid_slide(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    stack.kill("worker")
    stack.wait_until_ready("worker")
    night.finish()


def test_a_pool_process_killed_in_mid_slide(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    for child in psutil.Process(stack.pid("worker")).children(recursive=True):
        if child.is_running():
            child.send_signal(signal.SIGKILL)
    night.finish()


def test_redis_flushed_in_mid_batch(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    assert redis.Redis.from_url(stack.settings.broker_url).flushall()
    night.finish()


def test_every_message_delivered_several_times(night: Night, stack: Stack) -> None:
    night.upload()
    publisher = connect_publisher(stack.settings.broker_url)
    for _ in range(4):
        in_mid_batch(night)
        for analysis_id in night.analysis_ids():
            publisher.analyse_slide(analysis_id)
        publisher.intake_batch(night.lab, night.batch)
        time.sleep(0.5)
    night.finish()
    for analysis_id in night.analysis_ids():
        publisher.analyse_slide(analysis_id)
    time.sleep(3)
    night.finish()


def test_the_same_batch_uploaded_twice(night: Night) -> None:
    night.upload()
    in_mid_batch(night)
    night.upload()
    night.finish()
    night.upload()
    time.sleep(3)  # a sweep sees it
    night.finish()


def test_triton_stopped_for_a_minute(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    stack.stop("triton")
    try:
        time.sleep(60)
        assert night.state() == "analysing"
        assert night.slides("quarantined") == 0
    finally:
        stack.start("triton")
    night.finish()


def test_postgres_restarted(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    stack.stop("postgres")
    time.sleep(3)
    stack.start("postgres")
    night.engine.dispose()
    night.finish()


def test_postgres_killed(night: Night, stack: Stack) -> None:
    night.upload()
    in_mid_batch(night)
    stack.kill("postgres")
    stack.wait_until_ready("postgres")
    night.engine.dispose()
    night.finish()


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
            time.sleep(15)
            assert night.state() == "analysing"
            overloaded.clear()
            night.finish()
        finally:
            os.kill(worker.pid, signal.SIGTERM)
            worker.wait(60)
            log.close()
