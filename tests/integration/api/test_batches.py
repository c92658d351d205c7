"""A batch over HTTP from its announcement to its results, on real servers."""

import json
import threading
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from services.access.scopes import Scope
from services.batches.closing import close_batch
from services.database.session import transaction
from services.intake.registration import register_batch
from services.storage import ObjectStore
from tests.integration.api.serving import Api, announcement, send, serving_api, upload_all
from tests.integration.reporting.reporting_night import Night


def test_a_batch_sent_over_http_lies_in_the_store_as_one_sent_by_s3(api: Api) -> None:
    document, files = announcement()
    north = api.lab("north")
    state = send(north, document, files)
    assert (state["state"], state["fields"], state["slides"]) == ("analysing", 4, {"queued": 2})
    written = api.store.get("incoming/north/night-1/manifest.json", max_bytes=10**6)
    assert json.loads(written) == {
        "schema": "morphbatch.manifest/1", "lab": "north", "batch_id": "night-1",
        "slides": [
            {**slide, "fields": [{"key": f["key"], "sha256": f["sha256"], "kind": "field"} for f in slide["fields"]]}
            for slide in document["slides"]
        ],
    }  # fmt: skip
    for key, data in files.items():
        assert api.store.get(f"incoming/north/night-1/{key}", max_bytes=10**6) == data
    assert register_batch(api.engine, api.store, "north", "night-1").outcome == "unchanged"
    assert [row[0] for row in api.rows("select kind from audit_event where kind like '%batch%' order by id")] == [
        "batch_submitted",
        "batch_registered",
    ]  # fmt: skip


def test_the_same_again_gives_other_urls_and_other_content_is_refused_once_committed(api: Api) -> None:
    document, files = announcement()
    north = api.lab("north")
    first = north.post("/batches", json=document)
    assert (first.status_code, first.json()["committed"]) == (201, False)
    again = north.post("/batches", json=document)
    assert again.status_code == 200
    other, _ = announcement(slides=1)
    assert north.post("/batches", json=other).status_code == 201  # nothing was committed: it may be corrected
    assert north.post("/batches/night-1/commit").json()["reason"] == "fields_missing"
    assert north.post("/batches", json=document).status_code == 201
    upload_all(again.json(), files)
    assert north.post("/batches/night-1/commit").status_code == 202
    assert north.post("/batches/night-1/commit").status_code == 202
    known = north.post("/batches", json=document)
    assert (known.status_code, known.json()["committed"]) == (200, True)
    refused = north.post("/batches", json=other)
    assert (refused.status_code, refused.json()["reason"]) == (409, "batch_exists")
    assert api.rows("select count(*) from batch") == [(1,)]


def test_a_commit_names_each_field_that_is_not_there(api: Api) -> None:
    document, files = announcement()
    north = api.lab("north")
    announced = north.post("/batches", json=document).json()
    upload_all({"uploads": announced["uploads"][1:]}, files)
    api.store.put("incoming/north/night-1/slide-1/field-1.jpg", b"short")
    refused = north.post("/batches/night-1/commit")
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert [(p["path"], p["reason"]) for p in refused.json()["problems"]] == [
        ("slides[0].fields[0]", "field_missing"),
        ("slides[1].fields[1]", "field_size_differs"),
    ]
    assert api.store.stat("incoming/north/night-1/manifest.json") is None
    assert north.get("/batches/night-1").json()["state"] == "awaiting_fields"
    assert north.get("/batches").json() == {"batches": [], "next": None}


def test_a_wrong_announcement_is_told_every_fault_at_once(api: Api) -> None:
    document, _ = announcement()
    document["slides"][0]["um_per_px"] = 400
    document["slides"][0]["fields"][0].pop("size")
    document["slides"][1]["fields"][0]["size"] = 2**40
    document["slides"][1]["fields"][1]["key"] = "../other/x.jpg"
    document["lab"] = "south"
    refused = api.lab("north").post("/batches", json=document)
    assert (refused.status_code, refused.json()["reason"]) == (422, "manifest_rejected")
    assert {(p["path"], p["reason"]) for p in refused.json()["problems"]} == {
        ("slides[0].um_per_px", "um_per_px_absurd"),
        ("slides[0].fields[0].size", "manifest_missing_key"),
        ("slides[1].fields[0].size", "field_too_large"),
        ("slides[1].fields[1].key", "field_outside_batch"),
        ("lab", "manifest_lab_mismatch"),
    }
    assert api.rows("select count(*) from submission") == [(0,)]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"batch_id": 7}', b'{"a": NaN}'])
def test_what_is_no_batch_is_refused(api: Api, body: bytes) -> None:
    refused = api.lab("north").post("/batches", content=body)
    assert (refused.status_code, refused.json()["reason"]) == (422, "manifest_rejected")


def test_a_broker_that_is_down_loses_no_batch(api: Api) -> None:
    document, files = announcement()
    api.publisher.down = True
    assert send(api.lab("north"), document, files)["state"] == "submitted"
    register_batch(api.engine, api.store, "north", "night-1")  # as the sweep does
    assert api.lab("north").get("/batches/night-1").json()["state"] == "analysing"


def fill_with_batches(engine: Engine, lab: str, count: int) -> None:
    with transaction(engine) as session:
        session.execute(
            text(
                "insert into batch (lab_id, batch_code, state, manifest_sha256, manifest_etag, received_on)"
                " select l.id, 'n-' || n, 'complete', '0', '0', current_date from lab l, generate_series(1, :count) n"
                " where l.code = :lab"
            ),
            {"lab": lab, "count": count},
        )


def test_a_list_is_paged_whole_and_each_page_reads_no_more_than_itself(api: Api) -> None:
    north, south = api.lab("north"), api.lab("south")
    fill_with_batches(api.engine, "north", 10_000)
    fill_with_batches(api.engine, "south", 10_000)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = north.get("/batches", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        seen += [batch["batch_id"] for batch in page["batches"]]
        cursor = page["next"]
    assert seen == [f"n-{n}" for n in range(10_000, 9_400, -1)]
    last = south.get("/batches", params={"limit": 200}).json()["batches"][0]
    assert last["batch_id"] == "n-10000"

    with transaction(api.engine) as session:
        session.execute(text("analyze batch"))
        for before in (2**31 - 1, 5_000, 150):  # the first page, one in the middle, the last
            plan = session.execute(
                text(
                    "explain (analyze, buffers, format json) select id as batch_key, batch_code as batch_id, state,"
                    " received_at, closed_at, voided_at from batch where lab_id = (select id from lab where code ="
                    f" 'north') and id < coalesce(cast({before} as integer), 2147483647) order by id desc limit 51"
                )
            ).scalar_one()[0]["Plan"]
            names = str(plan)
            assert "ix_batch_lab_id_id" in names
            assert "'Sort'" not in names
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 70, before


@pytest.mark.parametrize("cursor", ["x", "YjA", "YmFk", "Yi0x", "YjIxNDc0ODM2NDg", "b" * 41, "é"])
def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    refused = api.lab("north").get("/batches", params={"cursor": cursor})
    assert refused.status_code == 422
    assert refused.json()["reason"] in ("bad_cursor", "bad_value")


def test_a_state_is_answered_when_it_changes(api: Api) -> None:
    document, files = announcement()
    north = api.lab("north")
    north.post("/batches", json=document)
    first = north.get("/batches/night-1")
    etag = first.headers["etag"]
    same = north.get("/batches/night-1", headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    began = time.monotonic()
    assert north.get("/batches/night-1", headers={"If-None-Match": etag}, params={"wait": 1}).status_code == 304
    assert time.monotonic() - began >= 1
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(
            north.get("/batches/night-1", headers={"If-None-Match": etag}, params={"wait": 20})
        )
    )
    waiting.start()
    send(api.lab("north"), document, files)
    waiting.join(15)
    [answer] = answers
    assert answer.json()["state"] in ("submitted", "analysing")  # whichever it sees first


def test_events_come_once_each_by_asking_and_as_a_stream(api: Api) -> None:
    north = api.lab("north")
    send(north, *announcement())
    assert north.get("/batches/night-1/events").json() == {"events": []}  # it has just happened
    found = north.get("/batches/night-1/events", params={"wait": 10}).json()["events"]
    assert [event["kind"] for event in found] == ["batch_registered"]
    assert found[0]["detail"]["fields"] == 4
    assert north.get("/batches/night-1/events", params={"after": found[0]["id"]}).json() == {"events": []}
    north.post("/batches/night-1/void", json={"why": "sent twice"})
    north.get("/batches/night-1")
    lines: list[str] = []
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(found[0]["id"])}
    with north.stream("GET", "/batches/night-1/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            lines.append(line)
            if line.startswith("data:"):
                break
    assert "event: batch_voided" in lines
    assert json.loads(lines[-1].removeprefix("data: "))["detail"]["why"] == "sent twice"


def test_a_revoked_token_ends_what_waits(api: Api) -> None:
    north = api.lab("north")
    send(north, *announcement())
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(north.get("/batches/night-1/events", params={"wait": 30, "after": 10**6}))
    )
    waiting.start()
    time.sleep(0.3)
    with transaction(api.engine) as session:
        session.execute(text("update api_token set revoked_at = now()"))
    waiting.join(10)
    assert [(answer.status_code, answer.json()["reason"]) for answer in answers] == [(401, "token_revoked")]


def test_a_change_under_one_key_is_made_once(full: Night, api: Api) -> None:
    berlin = api.lab("berlin")
    key = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    assert close_batch(full.engine, full.store, full.batch_key) == "complete_with_errors"
    asked = {"slides": ["slide-0"], "why": "field uploaded again"}
    first = berlin.post("/batches/night-1/requeue", json=asked, headers=key)
    again = berlin.post("/batches/night-1/requeue", json=asked, headers=key)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (202, {"slides": ["slide-0"]})
    assert api.rows("select max(version) from analysis") == [(2,)]
    assert len(api.publisher.published) == 1
    other = berlin.post("/batches/night-1/requeue", json={"slides": ["slide-1"]}, headers=key)
    assert (other.status_code, other.json()["reason"]) == (409, "idempotency_key_reused")
    without = berlin.post("/batches/night-1/requeue", json=asked)
    assert (without.status_code, without.json()["reason"]) == (409, "nothing_to_requeue")
    for _ in range(2):  # what failed keeps no key
        failed = berlin.post("/batches/night-1/requeue", json={"slides": ["none"]}, headers={"Idempotency-Key": "k"})
        assert failed.json()["reason"] == "nothing_to_requeue"
    assert berlin.post("/batches/night-1/void", json={"why": "x"}).json() == {"batch_id": "night-1", "voided": True}
    assert berlin.post("/batches/night-1/void", json={"why": "x"}).json()["reason"] == "not_voidable"
    assert berlin.get("/batches/night-1").json()["voided"]["why"] == "x"
    assert berlin.post("/batches/night-1/restore", json={"why": "y"}).json()["voided"] is False
    by = {row[0] for row in api.rows("select detail ->> 'by' from audit_event where detail ? 'by' and kind like '%d'")}
    assert any(name.startswith("token ") for name in by)


def test_a_batch_is_cancelled_once(api: Api) -> None:
    north = api.lab("north")
    send(north, *announcement())
    assert north.post("/batches/night-1/cancel", json={"why": "wrong stain"}).json() == {"slides": 2}
    again = north.post("/batches/night-1/cancel", json={"why": "wrong stain"})
    assert (again.status_code, again.json()["reason"]) == (409, "not_cancellable")
    assert north.get("/batches/night-1").json()["slides"] == {"cancelled": 2}


def test_results_are_the_reports_own(full: Night, api: Api) -> None:
    berlin = api.lab("berlin", Scope.READ)
    none = berlin.get("/batches/night-1/report")
    assert (none.status_code, none.json()["reason"]) == (404, "no_report")
    close_batch(full.engine, full.store, full.batch_key)
    report = berlin.get("/batches/night-1/report")
    assert report.content == full.get("report.json")
    assert berlin.get("/batches/night-1/report", headers={"If-None-Match": report.headers["etag"]}).status_code == 304
    document = report.json()
    assert berlin.get("/batches/night-1/slides/slide-0").json() == document["slides"][0]
    assert berlin.get("/batches/night-1/specimens/S-01").json() == {
        "specimens": [entry for entry in document["specimens"] if entry["specimen"] == "S-01"]
    }
    for missing in ("slides/none", "specimens/S-99", "files/none.csv", "files/rejected.json"):
        assert berlin.get(f"/batches/night-1/{missing}").json()["reason"] == "unknown_part"
    files = berlin.get("/batches/night-1/files").json()["files"]
    assert {"report.json", "slides.csv", "cells.parquet"} <= {file["name"] for file in files}
    for file in files:
        redirect = httpx.get(f"{api.url.removesuffix('/v1')}{file['href']}", headers=berlin.headers)
        assert redirect.status_code == 307
        got = httpx.get(redirect.headers["location"])
        assert got.content == full.get(file["name"]), file["name"]
    read = {row[0] for row in api.rows("select detail ->> 'file' from audit_event where kind = 'results_read'")}
    assert {"report.json", "slide slide-0", "specimen S-01", "slides.csv"} <= read


def test_a_rejected_batch_says_why_and_may_be_sent_again(api: Api) -> None:
    api.store.put("incoming/north/night-1/manifest.json", b"{}")
    north = api.lab("north")
    register_batch(api.engine, api.store, "north", "night-1")
    state = north.get("/batches/night-1").json()
    assert (state["state"], state["problems"][0]["reason"]) == ("rejected", "manifest_wrong_schema")
    assert north.get("/batches/night-1/files/rejected.json").status_code == 307
    assert send(north, *announcement())["state"] == "analysing"


def test_requests_bodies_and_waiting_are_limited(engine: Engine, empty_bucket: ObjectStore, rclone: Any) -> None:
    with serving_api(engine, empty_bucket, rclone.settings, api_requests_per_second=1.0) as api:
        north, other = api.lab("north"), api.lab("north")
        codes = [north.get("/batches").status_code for _ in range(14)]
        assert codes.count(200) in range(5, 10)
        refused = north.get("/batches")
        assert (refused.status_code, refused.json()["reason"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        assert other.get("/batches").status_code == 200  # each token has its own
        large = other.post("/batches", content=b" " * (8 * 2**20 + 1))
        assert (large.status_code, large.json()["reason"]) == (413, "body_too_large")
        large = other.post(
            "/batches/n/void", content=b'{"why": "' + b"x" * 2**18 + b'"}', headers={"Content-Type": "application/json"}
        )
        assert (large.status_code, large.json()["reason"]) == (413, "body_too_large")
        guesses = [api.client("mbt_aaaaaaaaaa_x").get("/batches").status_code for _ in range(14)]
        assert guesses.count(401) in range(5, 10)
        assert guesses[-1] == 429
