"""Bucket events over HTTP: MinIO's own into a served application and a real Redis, and what nobody should send."""

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from services.dispatch import BrokerUnavailable, Publisher
from services.local.broker import redis_service
from services.local.settings import settings_of
from services.settings import Settings
from services.storage import ObjectStore, connect_store
from tests.integration.api.serving import free_port, served
from tests.integration.servers import s3_installation, serving
from tests.waiting import wait_until


class _Recorder(Publisher):
    """Keeps the hints; `down` stands for a broker that cannot be reached."""

    def __init__(self) -> None:
        self.hints: list[tuple[str, str]] = []
        self.down = False

    def intake_batch(self, lab: str, batch_id: str) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        self.hints.append((lab, batch_id))


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[httpx.Client, _Recorder]]:
    """The served application, a client with its token, and where its hints go."""
    settings = Settings.model_validate({"webhook_token": "the-token", "api_port": free_port()})
    headers, recorder = {"Authorization": "Bearer the-token"}, _Recorder()
    with (
        served(settings, recorder),
        httpx.Client(base_url=f"http://127.0.0.1:{settings.api_port}", headers=headers) as client,
    ):
        yield client, recorder


@pytest.fixture
def client(service: tuple[httpx.Client, _Recorder]) -> httpx.Client:
    return service[0]


@pytest.fixture
def recorder(service: tuple[httpx.Client, _Recorder]) -> _Recorder:
    service[1].hints.clear()
    return service[1]


def _event(*keys: object) -> dict[str, Any]:
    return {"EventName": "s3:ObjectCreated:Put", "Records": [{"s3": {"object": {"key": key}}} for key in keys]}


def test_a_manifest_is_passed_on_once(client: httpx.Client, recorder: _Recorder) -> None:
    event = _event(
        "incoming%2Fberlin%2Fnight-1%2Fmanifest.json",  # as S3 and MinIO encode it
        "incoming/berlin/night-1/manifest.json",
        "incoming%2Foslo%2Fn.2%2Fmanifest.json",
        "incoming/berlin/night-1/slide-1/manifest.json",
        "incoming/berlin/night-1/slide-1/field+1.jpg",
        "results/berlin/night-1/manifest.json",
        "incoming/Berlin/night-1/manifest.json",
        "incoming/berlin/..%2Fx/manifest.json",
    )
    answer = client.post("/events/object-created", json=event)
    assert (answer.status_code, answer.json()) == (200, {"batches": 2})
    assert recorder.hints == [("berlin", "night-1"), ("oslo", "n.2")]


@pytest.mark.parametrize("header", ["", "Bearer wrong", "the-token", "Bearer", "bearer the-token", "Bearer the-tokenü"])
def test_a_wrong_token_is_refused(client: httpx.Client, recorder: _Recorder, header: str) -> None:
    answer = client.post("/events/object-created", json=_event(), headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    without = client.post(
        "/events/object-created", json=_event("incoming/a/b/manifest.json"), headers={"Authorization": ""}
    )
    assert without.status_code == 401
    assert recorder.hints == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "`Records` must be a list"),
        (b"{}", "`Records` must be a list"),
        (b'{"Records": {}}', "`Records` must be a list"),
        (b'{"Records": [1]}', "Records[0].s3.object.key is missing"),
        (b'{"Records": [{"s3": {"object": {}}}]}', "Records[0].s3.object.key is missing"),
        (b'{"Records": [{"s3": {"object": {"key": 7}}}]}', "is not a string"),
    ],
)
def test_a_malformed_event_says_what_is_wrong(client: httpx.Client, body: bytes, words: str) -> None:
    answer = client.post("/events/object-created", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_an_event_without_end_is_cut_off(client: httpx.Client) -> None:
    assert client.post("/events/object-created", content=b"x" * (2**20 + 1)).status_code == 413


def test_an_event_of_thousands_passes_on_a_few_and_leaves_the_rest_to_the_sweep(
    client: httpx.Client, recorder: _Recorder
) -> None:
    answer = client.post(
        "/events/object-created", json=_event(*(f"incoming/berlin/n-{n}/manifest.json" for n in range(5000)))
    )
    assert answer.json() == {"batches": 100}
    assert recorder.hints == [("berlin", f"n-{n}") for n in range(100)]


def _half_sent(client: httpx.Client) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 80))
    head = "POST /events/object-created HTTP/1.1", "Host: x", "Authorization: Bearer the-token", "Content-Length: 900"
    connection.sendall("\r\n".join((*head, "", '{"Records": [')).encode())
    return connection


def test_a_body_that_does_not_come_is_answered(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.app._BODY_TIMEOUT_S", 0.2)
    with _half_sent(client) as connection:
        connection.settimeout(20)
        assert connection.recv(200).startswith(b"HTTP/1.1 408 ")


def test_a_sender_that_hangs_up_is_one_line_in_the_log(
    client: httpx.Client, recorder: _Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with _half_sent(client):
        pass
    lines: list[str] = []
    for _ in range(20_000):  # until the server has noticed
        client.get("/health/live")
        if lines := [record.getMessage() for record in caplog.records if record.name == "services.api.app"]:
            break
    assert len(lines) == 1
    assert re.fullmatch(r"the sender of an event disconnected after (0|13) bytes of its body", lines[0])
    assert not any(record.exc_info for record in caplog.records)
    assert recorder.hints == []


def test_requests_that_never_end_keep_nobody_else_waiting(client: httpx.Client, recorder: _Recorder) -> None:
    waiting = [_half_sent(client) for _ in range(50)]
    bare = [socket.create_connection((client.base_url.host, client.base_url.port or 80)) for _ in range(50)]
    try:
        answer = client.post("/events/object-created", json=_event("incoming/berlin/n/manifest.json"))
        assert answer.json() == {"batches": 1}
    finally:
        for connection in (*waiting, *bare):
            connection.close()


def test_a_broker_that_is_down_makes_the_store_send_again(client: httpx.Client, recorder: _Recorder) -> None:
    recorder.down = True
    event = _event("incoming/berlin/night-1/manifest.json")
    assert client.post("/events/object-created", json=event).status_code == 503
    recorder.down = False
    assert client.post("/events/object-created", json=event).status_code == 200
    assert recorder.hints == [("berlin", "night-1")]


def test_it_says_that_it_lives(client: httpx.Client) -> None:
    assert client.get("/health/live", headers={"Authorization": ""}).status_code == 200


def _announced(broker_url: str, count: int, seconds: float) -> list[list[str]]:
    """The arguments of the first `count` hints at the broker."""
    with redis.Redis.from_url(broker_url) as broker:
        wait_until(lambda: broker.llen("control") >= count, seconds, f"{count} hints")
        messages = [json.loads(m) for m in reversed(broker.lrange("control", 0, -1))]  # type: ignore[union-attr]
    assert {m["headers"]["task"] for m in messages} <= {"morphbatch.intake_batch"}
    return [json.loads(base64.b64decode(m["body"]))[0] for m in messages]


def _upload(store: ObjectStore, batch: str) -> None:
    store.put(f"incoming/berlin/{batch}/slide 1/field-1.jpg", b"x")
    store.put(f"incoming/berlin/{batch}/manifest.json", b"{}", "application/json")
    store.put(f"results/berlin/{batch}/manifest.json", b"{}")


def test_minio_announces_a_manifest_and_waits_for_a_broker_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()
    published = Publisher.intake_batch

    def publish(publisher: Publisher, lab: str, batch_code: str) -> None:
        try:
            published(publisher, lab, batch_code)
        except BrokerUnavailable:
            refused.set()
            raise

    monkeypatch.setattr(Publisher, "intake_batch", publish)
    with s3_installation(tmp_path, "minio") as (installation, _):
        settings = settings_of(installation)
        store = connect_store(settings)
        store.subscribe_to_manifests("arn:minio:sqs::morphbatch:webhook")  # twice is no error
        with served(settings):
            with serving(redis_service(installation), installation):
                _upload(store, "night-1")
                assert _announced(settings.broker_url, 1, seconds=20) == [["berlin", "night-1"]]
            _upload(store, "night-2")  # the broker is gone: answered 503, kept by MinIO
            assert refused.wait(30)
            with serving(redis_service(installation), installation):
                assert _announced(settings.broker_url, 1, seconds=60) == [["berlin", "night-2"]]


def test_each_answer_is_counted_by_its_code(client: httpx.Client, recorder: _Recorder) -> None:
    def counted() -> dict[str, float]:
        found = re.findall(r'^morphbatch_bucket_events_total\{code="(\d+)"\} (\S+)$', client.get("/metrics").text, re.M)
        return {code: float(count) for code, count in found}

    before = counted()
    client.post("/events/object-created", json=_event("incoming/berlin/n/manifest.json"))
    client.post("/events/object-created", content=b"no JSON")
    client.post("/events/object-created", json=_event(), headers={"Authorization": "Bearer wrong"})
    recorder.down = True
    client.post("/events/object-created", json=_event("incoming/berlin/n/manifest.json"))
    recorder.down = False
    after = counted()
    assert {code: after[code] - before.get(code, 0) for code in after if after[code] != before.get(code, 0)} == {
        "200": 1, "400": 1, "401": 1, "503": 1
    }  # fmt: skip
