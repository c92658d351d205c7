"""Every border of a lab over HTTP, crossed from the outside: what is another lab's is answered as if it were not."""

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.access.scopes import Scope
from services.batches.closing import close_batch
from tests.integration.api.serving import Api, announcement, send
from tests.integration.reporting.reporting_night import Night

Request = tuple[str, str, Any]

OF_A_BATCH: list[Request] = [
    ("GET", "", None),
    ("GET", "/events", None),
    ("GET", "/report", None),
    ("GET", "/slides/slide-0", None),
    ("GET", "/specimens/S-01", None),
    ("GET", "/files", None),
    ("GET", "/files/report.json", None),
    ("GET", "/files/rejected.json", None),
    ("GET", "/files/slides.csv", None),
    ("POST", "/commit", None),
    ("POST", "/requeue", {"slides": ["slide-0"]}),
    ("POST", "/cancel", {"why": "x"}),
    ("POST", "/void", {"why": "x"}),
    ("POST", "/restore", {"why": "x"}),
]


def test_another_lab_s_batch_is_answered_like_one_that_does_not_exist(full: Night, api: Api) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    berlin, oslo = api.lab("berlin"), api.lab("oslo")
    before = api.rows("select count(*), max(version) from analysis")
    for method, path, body in OF_A_BATCH:
        theirs = oslo.request(method, f"/batches/night-1{path}", json=body)
        nobodys = oslo.request(method, f"/batches/night-2{path}", json=body)
        assert theirs.status_code == nobodys.status_code == 404, (method, path)
        assert theirs.json()["reason"] == "unknown_batch", (method, path)
        assert theirs.text.replace("night-1", "night-2") == nobodys.text
        assert "berlin" not in theirs.text
    assert oslo.get("/batches").json() == {"batches": [], "next": None}
    cursor = berlin.get("/batches", params={"limit": 1}).json()
    assert [batch["batch_id"] for batch in cursor["batches"]] == ["night-1"]
    assert api.rows("select count(*), max(version) from analysis") == before
    assert api.rows("select voided_at from batch") == [(None,)]


def test_a_cursor_of_another_lab_leads_into_one_s_own_list(api: Api) -> None:
    north, south = api.lab("north"), api.lab("south")
    for n in range(3):
        send(north, *announcement(f"n-{n}", slides=1, fields=1))
        send(south, *announcement(f"s-{n}", slides=1, fields=1))
    cursor = north.get("/batches", params={"limit": 1}).json()["next"]
    assert {b["batch_id"] for b in south.get("/batches", params={"cursor": cursor}).json()["batches"]} <= {"s-0", "s-1"}


@pytest.mark.parametrize(
    "name",
    [
        "../night-2/report.json",
        "..%2Fnight-2%2Freport.json",
        "../../oslo/night-1/report.json",
        "/results/oslo/night-1/report.json",
        "revisions/1/report.json",
        "report.json/",
        "REPORT.JSON",
        "report.json%00.csv",
        "slides/slide-9/cells.geojson",
    ],
)
def test_a_guessed_file_is_not_found(full: Night, api: Api, name: str) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    full.store.put("results/oslo/night-1/report.json", b"another lab's")
    full.store.put("results/berlin/night-2/report.json", b"not on record")
    answer = api.lab("berlin").get(f"/batches/night-1/files/{name}")
    assert answer.status_code in (404, 422), answer.headers.get("location")


def test_a_manifest_that_names_another_lab_or_its_fields_is_refused(api: Api) -> None:
    document, _ = announcement()
    south = api.lab("south")
    for change in (
        lambda d: d.update(lab="north"),
        lambda d: d.update(batch_id="../north/n-1"),
        *(
            lambda d, key=key: d["slides"][0]["fields"][0].update(key=key)
            for key in ("../../north/n-1/slide-0/field-0.jpg", "/incoming/north/n-1/a.jpg", "incoming/north/n-1/a.jpg",
                        "results/north/n-1/report.json", "s3://b/incoming/north/a.jpg", "manifest.json")
        ),
    ):  # fmt: skip
        changed, _ = announcement()
        change(changed)
        refused = south.post("/batches", json=changed)
        assert (refused.status_code, refused.json()["reason"]) == (422, "manifest_rejected")
    urls = [upload["url"] for upload in south.post("/batches", json=document).json()["uploads"]]
    assert all("/incoming/south/night-1/" in url for url in urls)


def test_an_idempotency_key_of_another_lab_tells_nothing(full: Night, api: Api) -> None:
    key = {"Idempotency-Key": "one-key"}
    assert api.lab("berlin").post("/batches/night-1/void", json={"why": "x"}, headers=key).status_code == 200
    theirs = api.lab("oslo").post("/batches/night-1/void", json={"why": "x"}, headers=key)
    assert theirs.status_code == 404


NEEDS: dict[Scope, list[Request]] = {
    Scope.UPLOAD: [("POST", "/batches", {}), ("POST", "/batches/n-1/commit", None)],
    Scope.READ: [("GET", "/batches", None), *((m, f"/batches/n-1{p}", b) for m, p, b in OF_A_BATCH if m == "GET")],
    Scope.ADMINISTER: [(m, f"/batches/n-1{p}", b) for m, p, b in OF_A_BATCH if m == "POST" and p != "/commit"],
}


def test_every_endpoint_wants_its_scope_and_no_other(api: Api) -> None:
    clients = {scope: api.lab("north", scope) for scope in Scope}
    nobody = [api.client(), api.client("x"), api.client("mbt_aaaaaaaaaa_" + "x" * 43)]
    for needed, requests in NEEDS.items():
        for method, path, body in requests:
            for scope, client in clients.items():
                answer = client.request(method, path, json=body)
                assert (answer.status_code == 403) == (scope is not needed), (method, path, scope)
                assert scope is needed or answer.json()["reason"] == "scope_missing"
            for client in nobody:
                answer = client.request(method, path, json=body)
                assert (answer.status_code, answer.json()["reason"]) == (401, "token_refused")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"


def altered(url: str, part: str, to: str) -> str:
    assert part in url
    return url.replace(part, to, 1)


CHANGES: dict[str, Callable[[str], str]] = {
    "to another field": lambda url: altered(url, "slide-0/field-0.jpg", "slide-0/field-1.jpg"),
    "to another lab": lambda url: altered(url, "incoming/north", "incoming/south"),
    "to the manifest": lambda url: altered(url, "slide-0/field-0.jpg", "manifest.json"),
    "to the results": lambda url: altered(url, "incoming/north", "results/north"),
    "to last longer": lambda url: altered(url, "X-Amz-Expires=3600", "X-Amz-Expires=604800"),
    "to sign less": lambda url: altered(url, "content-length%3Bhost%3Bx-amz-checksum-sha256", "host"),
    "without its signature": lambda url: url.partition("&X-Amz-Signature")[0],
}


@pytest.mark.parametrize("store", ["rclone", "minio"])
def test_an_upload_url_is_good_for_one_field_and_one_content(request: pytest.FixtureRequest, store: str) -> None:
    api: Api = request.getfixturevalue({"rclone": "api", "minio": "api_on_minio"}[store])
    document, files = announcement()
    north = api.lab("north")
    uploads = north.post("/batches", json=document).json()["uploads"]
    upload, content = uploads[0], files[uploads[0]["key"]]
    for what, change in CHANGES.items():
        answer = httpx.put(change(upload["url"]), content=content, headers=upload["headers"])
        assert answer.status_code in (400, 403), what
    for method in ("GET", "DELETE", "POST"):
        answer = httpx.request(method, upload["url"], headers=upload["headers"])
        assert answer.status_code >= 400, method
    other = bytes(reversed(content))
    assert httpx.put(upload["url"], content=content + b"x", headers=upload["headers"]).status_code == 403
    assert httpx.put(upload["url"], content=content).status_code >= 400  # without the checksum
    own = {"x-amz-checksum-sha256": hashlib.sha256(other).hexdigest()}
    assert httpx.put(upload["url"], content=other, headers=own).status_code == 403
    altered_content = httpx.put(upload["url"], content=other, headers=upload["headers"])
    if store == "minio":
        assert altered_content.status_code == 400  # it compares the checksum
        assert list(api.store.list("")) == []
    assert httpx.put(upload["url"], content=content, headers=upload["headers"]).status_code == 200
    for upload in uploads[1:]:
        httpx.put(upload["url"], content=files[upload["key"]], headers=upload["headers"])
    assert north.post("/batches/night-1/commit").status_code == 202
    # Replayed after the commit: the same content is the same object, another one is refused.
    assert httpx.put(uploads[0]["url"], content=content, headers=uploads[0]["headers"]).status_code == 200
    assert api.store.get("incoming/north/night-1/" + uploads[0]["key"], max_bytes=9999) == content
    assert httpx.put(uploads[0]["url"], content=b"y" * 7, headers=uploads[0]["headers"]).status_code == 403


def test_a_download_url_is_good_for_one_file_and_some_minutes(full: Night, api: Api) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    full.store.put("results/oslo/night-1/report.json", b"another lab's")
    url = api.lab("berlin").get("/batches/night-1/files/report.json").headers["location"]
    assert "X-Amz-Expires=300" in url
    for part, to in (("results/berlin", "results/oslo"), ("report.json", "slides.csv"), ("=300", "=3000")):
        assert httpx.get(altered(url, part, to)).status_code == 403
    assert httpx.put(url, content=b"x").status_code >= 400
    assert httpx.get(url).status_code == 200
