"""The object store on real servers: rclone (embedded) and MinIO."""

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.errors import ConfigurationError, OutageError, PermanentError
from services.local.settings import settings_of
from services.settings import Settings
from services.storage import (
    ObjectMissing,
    ObjectStore,
    ObjectTooLarge,
    StoreClockDiffers,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    connect_store,
)
from tests.integration.servers import S3Server, s3_installation, wait_for


def test_what_was_put_comes_back_with_its_etag(store: ObjectStore) -> None:
    data = bytes(range(256)) * 100
    put = store.put("a/b c/ü.bin", data)
    assert store.get("a/b c/ü.bin", max_bytes=len(data)) == data
    found = store.stat("a/b c/ü.bin")
    assert found is not None
    assert (found.size, found.etag) == (len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
    assert put == found
    assert next(store.list("a/")) == found


def test_a_file_is_put_as_it_is(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "field.jpg"
    path.write_bytes(b"x" * 100_000)
    put = store.put_file("files/field.jpg", path, "image/jpeg")
    assert store.stat("files/field.jpg") == put
    assert store.get("files/field.jpg", max_bytes=100_000) == path.read_bytes()
    (tmp_path / "empty").touch()
    assert store.put_file("files/empty", tmp_path / "empty").size == 0
    assert store.get("files/empty", max_bytes=10) == b""


def test_a_large_file_goes_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    assert store.put_file("files/large", path).size == 65 * 2**20
    found = store.stat("files/large")
    assert found is not None
    assert found.size == 65 * 2**20
    store.delete("files/large")


def test_a_missing_object_is_a_permanent_error_and_no_stat(store: ObjectStore) -> None:
    assert store.stat("nowhere/x") is None
    with pytest.raises(ObjectMissing) as raised:
        store.get("nowhere/x", max_bytes=1)
    assert isinstance(raised.value, PermanentError)
    assert raised.value.reason == "object_missing"
    assert "nowhere/x" in str(raised.value)
    store.delete("nowhere/x")  # no error


def test_an_object_larger_than_asked_for_is_refused(store: ObjectStore) -> None:
    store.put("limits/ten", b"0123456789")
    assert store.get("limits/ten", max_bytes=10) == b"0123456789"
    with pytest.raises(ObjectTooLarge, match="limits/ten"):
        store.get("limits/ten", max_bytes=9)
    assert store.get("limits/ten", max_bytes=10) == b"0123456789"


def test_listing_by_folder_and_by_prefix(store: ObjectStore) -> None:
    for key in ("incoming/berlin/n1/manifest.json", "incoming/berlin/n2/x/y.jpg", "incoming/oslo/n1/z.jpg"):
        store.put(key, b".")
    assert sorted(store.list_folders("incoming/")) == ["berlin", "oslo"]
    assert sorted(store.list_folders("incoming/berlin/")) == ["n1", "n2"]
    assert [o.key for o in store.list("incoming/berlin/n2/")] == ["incoming/berlin/n2/x/y.jpg"]
    assert list(store.list("incoming/rome/")) == []
    assert list(store.list_folders("incoming/rome/")) == []


def test_a_listing_of_several_pages_is_whole(store: ObjectStore) -> None:
    keys = {f"pages/{n:04d}" for n in range(1_010)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert {o.key for o in store.list("pages/")} == keys


def test_an_object_is_replaced_and_deleted(store: ObjectStore) -> None:
    store.put("one", b"old")
    store.put("one", b"newer")
    assert store.get("one", max_bytes=100) == b"newer"
    store.delete("one")
    assert store.stat("one") is None


def test_an_object_is_copied_within_the_store(store: ObjectStore) -> None:
    store.put("copies/of a+b", b"content", "text/csv")
    store.copy("copies/of a+b", "copies/1/of a+b")
    assert store.get("copies/1/of a+b", max_bytes=100) == b"content"
    with pytest.raises(ObjectMissing):
        store.copy("nowhere/x", "copies/x")


def test_check_proves_the_rights_and_leaves_nothing(store: ObjectStore) -> None:
    store.ensure_bucket()
    store.check()
    assert [o for o in store.list("results/") if "probe" in o.key] == []


def test_a_bucket_that_is_told_to_keeps_what_is_overwritten(minio: S3Server) -> None:
    store = minio.new_bucket()
    assert not store.keeps_versions()
    for _ in range(2):  # as a Job that runs again
        store.keep_versions()
    assert store.keeps_versions()
    for content in (b"first", b"second"):
        store.put("manifest.json", content)
    versions = store._client.list_objects(store.bucket, prefix="manifest.json", include_version=True)
    assert len(list(versions)) == 2


def test_threads_share_one_store(store: ObjectStore) -> None:
    for n in range(20):
        store.put(f"shared/{n}", str(n).encode())
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: store.get(f"shared/{n % 20}", max_bytes=10), range(200)))
    assert got == [str(n % 20).encode() for n in range(200)]


@pytest.mark.parametrize("flavour", ["rclone", "minio"])
def test_wrong_keys_and_a_missing_bucket_are_the_operators_to_mend(tmp_path: Path, flavour: str) -> None:
    with s3_installation(tmp_path, flavour) as (installation, child):  # type: ignore[arg-type]
        good = settings_of(installation)
        wrong = connect_store(good.model_copy(update={"s3_secret_key": SecretStr("wrong-secret")}))
        for call in (wrong.check, lambda: wrong.get("x", max_bytes=1), lambda: list(wrong.list(""))):
            with pytest.raises(StoreRefused) as raised:
                call()
            assert isinstance(raised.value, ConfigurationError)
        elsewhere = connect_store(good.model_copy(update={"s3_bucket": "no-such-bucket"}))
        with pytest.raises(StoreRefused, match="no-such-bucket"):
            elsewhere.put("x", b"")
        elsewhere.ensure_bucket()
        elsewhere.check()

        store = connect_store(good)
        store.put("kept", b"kept")
        child.stop()
        before = time.monotonic()
        for call in (lambda: store.get("kept", max_bytes=9), lambda: store.stat("kept"), lambda: list(store.list(""))):
            with pytest.raises(StoreUnavailable) as outage:
                call()
            assert isinstance(outage.value, OutageError)
        assert time.monotonic() - before < 30
        child.start()
        wait_for(child)
        assert store.get("kept", max_bytes=9) == b"kept"


class _Failing(http.server.BaseHTTPRequestHandler):
    """Answers as a store in trouble does; `script` has one answer a request, the last one for ever."""

    script: list[str]

    def do_GET(self) -> None:
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step == "ok":
            self._answer(200, b"0123456789", 10)
        elif step == "short":  # claims ten bytes, sends four, hangs up
            self._answer(200, b"0123", 10)
        elif step == "slow down":
            self._answer(503, b"<Error><Code>SlowDown</Code><Message>m</Message></Error>", None, "application/xml")
        else:
            self._answer(502, b"<html>bad gateway</html>", None, "text/html")

    def _answer(self, status: int, body: bytes, length: int | None, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Retry-After", "120")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        return None


@contextmanager
def _failing_store(*script: str) -> Iterator[ObjectStore]:
    handler = type("Handler", (_Failing,), {"script": list(script)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield connect_store(Settings.model_validate({"s3_endpoint": f"http://127.0.0.1:{server.server_port}"}))
        finally:
            server.shutdown()
            thread.join()


def test_a_store_that_asks_to_slow_down_is_asked_again_soon() -> None:
    before = time.monotonic()
    with _failing_store("slow down", "bad gateway", "ok") as store:
        assert store.get("x", max_bytes=10) == b"0123456789"
    assert time.monotonic() - before < 10  # and not after the two minutes it asks for


@pytest.mark.parametrize("trouble", ["slow down", "bad gateway", "short"])
def test_lasting_trouble_is_an_outage(trouble: str) -> None:
    with _failing_store(trouble) as store, pytest.raises(StoreUnavailable):
        store.get("x", max_bytes=100)


@contextmanager
def _refusing_store(status: int, code: str, clock_ahead_s: float = 0) -> Iterator[ObjectStore]:
    """A store that refuses everything with this code, and whose clock is ahead of this machine's."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + clock_ahead_s, usegmt=True))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - named by the library

        def log_message(self, *args: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield connect_store(Settings.model_validate({"s3_endpoint": f"http://127.0.0.1:{server.server_port}"}))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ahead_s", [1200, -86400])
def test_clocks_that_differ_are_no_matter_of_rights(ahead_s: int) -> None:
    with _refusing_store(403, "RequestTimeTooSkewed", ahead_s) as store:
        ask: list[Callable[[], object]] = [store.check, lambda: store.get("x", max_bytes=1), lambda: store.stat("x")]
        for call in (*ask, lambda: list(store.list(""))):
            with pytest.raises(StoreClockDiffers) as raised:
                call()
            stated = re.search(r"clock is ([+-]\d+) s off", str(raised.value))
            assert stated is not None
            assert abs(int(stated[1]) - ahead_s) < 60
            assert "NTP" in str(raised.value)
            assert "rights" not in str(raised.value)


def test_a_refusal_of_rights_beside_a_clock_that_is_nearly_right_stays_one() -> None:
    with _refusing_store(403, "AccessDenied", 60) as store, pytest.raises(StoreRefused, match="rights") as raised:
        store.stat("x")
    assert not isinstance(raised.value, StoreClockDiffers)


@pytest.mark.parametrize(
    ("status", "code", "error", "advice"),
    [
        (403, "AccessDenied", StoreRefused, "check the rights"),
        (403, "InvalidAccessKeyId", StoreRefused, "MORPHBATCH_S3_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", StoreRefused, "MORPHBATCH_S3_SECRET_KEY"),
        (400, "ExpiredToken", StoreRefused, "has expired"),
        (400, "AuthorizationHeaderMalformed", StoreRefused, "MORPHBATCH_S3_REGION"),
        (301, "PermanentRedirect", StoreRefused, "MORPHBATCH_S3_REGION"),
        (404, "NoSuchBucket", StoreRefused, "no such bucket"),
        (400, "EntityTooLarge", StoreRefused, "of this size"),
        (403, "InvalidObjectState", StoreRefused, "archived"),
        (403, "QuotaExceeded", StoreFull, "no room"),
        (507, "XMinioStorageFull", StoreFull, "no room"),
        (429, "TooManyRequests", StoreUnavailable, "later"),
        (400, "RequestTimeout", StoreUnavailable, "later"),
        (418, "SomethingNew", StoreRefused, "MORPHBATCH_S3"),
        (501, "SomethingNew", StoreUnavailable, "501 SomethingNew"),
    ],
)
def test_the_code_decides_the_advice_and_whether_waiting_helps(
    status: int, code: str, error: type[Exception], advice: str
) -> None:
    with _refusing_store(status, code) as store, pytest.raises(error, match=advice) as raised:
        store.put("x", b"")
    assert type(raised.value) is error


def test_a_body_that_breaks_off_is_fetched_again() -> None:
    with _failing_store("short", "short", "ok") as store:
        assert store.get("x", max_bytes=100) == b"0123456789"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://host/path", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(StoreRefused, match="S3_ENDPOINT"):
        connect_store(Settings.model_validate({"s3_endpoint": endpoint}))
