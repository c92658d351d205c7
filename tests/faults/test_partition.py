"""Workers on hosts of their own, here network namespaces, against shared services; one host is cut off in mid-slide."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from sqlalchemy import text

from tests.conftest import Stack
from tests.drawn_night import Night
from tests.places import CHECKOUT
from tests.waiting import wait_until

SERVICES = ("database_url", "broker_url", "s3_endpoint", "triton_endpoint")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Relay:
    """A port at an address of this machine that leads to a service of the stack, which listens on 127.0.0.1 only."""

    def __init__(self, address: str, port: int) -> None:
        self._port = port
        self._listener = socket.create_server((address, 0))
        self.at = f"{address}:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            self._ends += [near, far]
            for ends in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=_pump, args=ends))
                self._threads[-1].start()

    def close(self) -> None:
        """End it and every connection through it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._ends:
            end.close()


@dataclass(slots=True)
class Host:
    """A network namespace that reaches the stack's services by one cable, and a slide worker in it."""

    name: str
    cable: str
    environment: dict[str, str]
    folder: Path
    relays: list[Relay] = field(default_factory=list)
    worker: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What its worker has said."""
        return (self.folder / f"{self.name}.log").read_text()

    @property
    def _heartbeat(self) -> Path:
        return self.folder / f"{self.name}.heartbeat"

    def start(self) -> None:
        """Start the worker, and wait until it takes slides."""
        command = (sys.executable, "-m", "celery", "--app", "worker.app", "worker", "--hostname", f"worker@{self.name}")
        rest = (
            "--queues",
            "slides",
            "--concurrency",
            "1",
            "--loglevel",
            "info",
            "--without-gossip",
            "--without-mingle",
        )
        environment = {**self.environment, "MORPHBATCH_HEARTBEAT_FILE": str(self._heartbeat)}
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.worker = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command, *rest],
                cwd=CHECKOUT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._heartbeat.exists, 60, f"the worker of {self.name} ready")

    def pool(self) -> list[psutil.Process]:
        """The processes in which it analyses slides."""
        assert self.worker is not None
        return psutil.Process(self.worker.pid).children(recursive=True)

    def beats_again(self) -> None:
        """Wait until it takes messages."""
        before = self._heartbeat.stat().st_mtime
        wait_until(lambda: self._heartbeat.stat().st_mtime > before, 60, f"the worker of {self.name} takes messages")

    def cut_off(self) -> None:
        """Pull the cable."""
        ip("link", "set", self.cable, "down")

    def heal(self) -> None:
        """Plug it in again."""
        ip("link", "set", self.cable, "up")


@contextmanager
def host(stack: Stack, number: int, folder: Path) -> Iterator[Host]:
    """One host; it is gone at the end of the block."""
    settings = stack.settings
    name, cable = f"mb-{os.getpid()}-{number}", f"mb{os.getpid() % 10**7}-{number}"
    net = f"10.213.{os.getpid() % 250}"
    ours, theirs = f"{net}.{4 * number + 1}", f"{net}.{4 * number + 2}"
    made = Host(name, cable, dict(stack.environment), folder)
    ip("netns", "add", name)
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{ours}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", name, "addr", "add", f"{theirs}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")
        for service in SERVICES:
            there = getattr(settings, service)
            parts = urlsplit(there if "//" in there else f"//{there}")
            assert parts.port
            relay = Relay(ours, parts.port)
            made.relays.append(relay)
            made.environment[f"MORPHBATCH_{service.upper()}"] = there.replace(
                f"{parts.hostname}:{parts.port}", relay.at
            )
        yield made
    finally:
        if made.worker is not None:
            made.worker.terminate()
            try:
                made.worker.wait(30)
            except subprocess.TimeoutExpired:
                for process in made.pool():
                    process.kill()
                made.worker.kill()
                made.worker.wait()
        for relay in made.relays:
            relay.close()
        ip("netns", "del", name)  # and with it the cable


@pytest.fixture
def hosts(stack: Stack, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts, while the stack's own slide worker stands still."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("hosts are network namespaces: root and `ip` (iproute2) are required")
    stack.stop("worker")
    try:
        with host(stack, 0, tmp_path) as first, host(stack, 1, tmp_path) as second:
            yield first, second
    finally:
        stack.start("worker")


def held_by(night: Night, analysis_id: int) -> tuple[str, int]:
    """State of an analysis, and the attempt."""
    with night.engine.connect() as connection:
        row = connection.execute(text("select state, attempts from analysis where id = :id"), {"id": analysis_id}).one()
    return row.state, row.attempts


def test_a_host_cut_off_in_mid_slide_and_healed(night: Night, hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    first.start()
    night.upload()
    (analysis_id,) = cut_in_mid_slide(night, first)
    second.start()
    wait_until(lambda: held_by(night, analysis_id)[1] == 2, 60, "the slide taken over")
    wait_until(lambda: held_by(night, analysis_id)[0] not in ("queued", "running"), 60, "the slide done by the other")
    assert "another worker" not in first.log
    first.heal()
    wait_until(lambda: "another worker" in first.log, 60, "the late write refused")
    night.finish()
    assert night.attempts().pop(analysis_id) == 2
    assert sorted(night.attempts().values()) == [1, 1, 1, 1, 2]
    first.beats_again()


def cut_in_mid_slide(night: Night, first: Host) -> list[int]:
    """Pull the host's cable at a moment when its worker has a slide; that slide's analysis."""
    held: list[int] = []

    def cut() -> bool:
        wait_until(night.at_work, what="a slide running")
        for process in first.pool():
            process.suspend()  # so that it does not end just now
        held[:] = night.at_work()
        if held:
            first.cut_off()
        for process in first.pool():
            process.resume()
        return bool(held)

    wait_until(cut)
    return held
