"""The HTTP service as it runs: uvicorn in a thread, on a port of its own, with clients of labs."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Engine, text

from services.access.scopes import Scope
from services.access.tokens import add_lab, issue_token
from services.api.app import create_app
from services.database.session import transaction
from services.dispatch import BrokerUnavailable, Publisher
from services.intake.registration import register_batch
from services.settings import Settings
from services.storage import ObjectStore
from tests.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(settings: Settings, publisher: Publisher | None = None) -> Iterator[None]:
    """The application at the port of the settings."""
    app = create_app(settings, publisher)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=settings.api_port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield
    finally:
        server.should_exit = True
        thread.join()


class TakesIn(Publisher):
    """Stands for broker and worker: takes a batch in as soon as it is announced, unless it is `down`."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self._engine, self._store = engine, store
        self.down = False
        self.published: list[int] = []

    def intake_batch(self, lab: str, batch_id: str) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        register_batch(self._engine, self._store, lab, batch_id)

    def analyse_slide(self, analysis_id: int) -> None:
        self.published.append(analysis_id)

    def slides_announced(self) -> int:
        return 0


@dataclass
class Api:
    """A served application over a database and a bucket of the test's own."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    publisher: TakesIn
    _clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.api_port}/v1"

    def token(self, lab: str, *scopes: Scope) -> str:
        """A new token of the lab with these scopes, by default all."""
        add_lab(self.engine, lab, by="test")
        return issue_token(self.engine, lab, name="LIMS", scopes=list(scopes or Scope), days=1, by="test").text

    def lab(self, lab: str, *scopes: Scope) -> httpx.Client:
        """A client that shows a new token of the lab."""
        return self.client(self.token(lab, *scopes))

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with transaction(self.engine) as session:
            return [tuple(row) for row in session.execute(text(statement))]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def serving_api(engine: Engine, store: ObjectStore, s3: Settings, **changes: Any) -> Iterator[Api]:
    settings = s3.model_copy(
        update={
            "database_url": engine.url.render_as_string(hide_password=False),
            "s3_bucket": store.bucket,
            "api_port": free_port(),
            "api_requests_per_second": 10_000.0,
            **changes,
        }
    )
    api = Api(settings, engine, store, TakesIn(engine, store))
    with served(settings, api.publisher):
        try:
            yield api
        finally:
            api.close()


def announcement(
    batch_id: str = "night-1", slides: int = 2, fields: int = 2, **changes: Any
) -> tuple[Any, dict[str, bytes]]:
    """A batch as it is announced, and the bytes of its fields by key."""
    files = {f"slide-{s}/field-{f}.jpg": os.urandom(500 + f) for s in range(slides) for f in range(fields)}
    document = {
        "batch_id": batch_id,
        "slides": [
            {
                "slide_id": f"slide-{s}", "specimen": f"S-{s:04X}", "replicate": 1, "stain": "diff-quik",
                "um_per_px": 0.1,
                "fields": [
                    {"key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    for key, data in files.items() if key.startswith(f"slide-{s}/")
                ],
            }
            for s in range(slides)
        ],
        **changes,
    }  # fmt: skip
    return document, files


def upload_all(announced: dict[str, Any], files: dict[str, bytes]) -> None:
    """PUT each field where the answer to the announcement says."""
    for upload in announced["uploads"]:
        done = httpx.put(upload["url"], content=files[upload["key"]], headers=upload["headers"])
        assert done.status_code == 200, done.text


def send(client: httpx.Client, document: Any, files: dict[str, bytes]) -> dict[str, Any]:
    """A batch from its announcement to its commit; the state that is answered."""
    announced = client.post("/batches", json=document)
    assert announced.status_code in (200, 201), announced.text
    upload_all(announced.json(), files)
    done = client.post(f"/batches/{document['batch_id']}/commit")
    assert done.status_code == 202, done.text
    state: dict[str, Any] = done.json()
    return state
