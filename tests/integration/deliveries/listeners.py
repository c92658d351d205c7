"""Targets of deliveries that answer as a test tells them to, over real sockets and TLS."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hl7
import trustme

Answer = Callable[[str], bytes | None]
"""Of a message's text, what is sent back; `None`: the connection is dropped."""


def acknowledged(code: str, said: str = "") -> Answer:
    """An acknowledgement with this code."""

    def answer(text: str) -> bytes:
        control = str(hl7.parse(text).segment("MSH")[10])
        lines = (
            "MSH|^~\\&|LIMS|berlin|MORPHBATCH|berlin|20261124||ACK^R01^ACK|1|P|2.5.1",
            f"MSA|{code}|{control}|{said}",
        )
        return b"\x0b" + "\r".join((*lines, "")).encode() + b"\x1c\r"

    return answer


def late(seconds: float, then: Answer) -> Answer:
    """The same answer after a while."""

    def answer(text: str) -> bytes | None:
        time.sleep(seconds)
        return then(text)

    return answer


@dataclass
class Listener:
    """What came, and what is answered next; the last of `answers` is repeated."""

    address: str
    answers: list[Any]
    messages: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def next_answer(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def control_ids(self) -> list[str]:
        """MSH-10 of each message."""
        return [str(hl7.parse(text).segment("MSH")[10]) for text in self.messages]


@contextmanager
def mllp_listener(ca: trustme.CA, *answers: Answer, client_ca: trustme.CA | None = None) -> Iterator[Listener]:
    """One that takes a message a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client_ca.configure_trust(context)
    server = socket.create_server(("127.0.0.1", 0))
    listener = Listener(f"localhost:{server.getsockname()[1]}", list(answers))

    def serve() -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return  # closed: the test is over
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    _take(connection, listener)
            except OSError:
                plain.close()  # it gave up, or showed no certificate

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def _take(connection: ssl.SSLSocket, listener: Listener) -> None:
    read = b""
    while not read.endswith(b"\x1c\r"):
        part = connection.recv(65536)
        if not part:
            return
        read += part
    listener.messages.append(read[1:-2].decode())
    if (answer := listener.next_answer()(listener.messages[-1])) is not None:
        connection.sendall(answer)


@contextmanager
def http_listener(ca: trustme.CA, *answers: tuple[int, Any]) -> Iterator[Listener]:
    """One that answers each POST with a status and a JSON body, over TLS; a body of bytes as it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.messages.append(body.decode())
            listener.headers.append(dict(self.headers))
            status, said = listener.next_answer()
            if callable(said):
                said = said(body.decode())
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"https://{listener.address}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    listener = Listener(f"localhost:{server.server_address[1]}", list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
