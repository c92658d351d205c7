"""Registration and sweep on a real Postgres and a real object store."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from services.database.session import transaction
from services.errors import OutageError
from services.intake.registration import NoActiveRelease, Outcome, register_batch
from services.intake.uploads import SweepIncomplete, sweep_incoming, unusable_uploads
from services.intake.validation import BadBatchName
from services.storage import ObjectMissing, ObjectStore, StoreRefused, StoreUnavailable
from tests.integration.servers import Postgres


def _manifest(lab: str = "berlin", batch: str = "night-1", slides: int = 2, fields: int = 3) -> dict[str, Any]:
    return {
        "schema": "morphbatch.manifest/1",
        "lab": lab,
        "batch_id": batch,
        "slides": [
            {
                "slide_id": f"slide-{s}",
                "specimen": f"S-{s // 2:04X}",
                "replicate": s % 2 + 1,
                "stain": "diff-quik",
                "um_per_px": 0.1,
                "fields": [
                    {"key": f"slide-{s}/field-{f}.jpg", "sha256": f"{s * 10000 + f:064x}"} for f in range(fields)
                ],
            }
            for s in range(slides)
        ],
    }


def _upload(store: ObjectStore, manifest: dict[str, Any] | bytes, lab: str = "berlin", batch: str = "night-1") -> None:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    store.put(f"incoming/{lab}/{batch}/manifest.json", data, "application/json")


def _rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with transaction(engine) as session:
        return [tuple(row) for row in session.execute(text(query))]


def _notice(store: ObjectStore, name: str, lab: str = "berlin", batch: str = "night-1") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(store.get(f"results/{lab}/{batch}/{name}.json", max_bytes=2**20))
    return content


def test_a_manifest_becomes_a_batch_with_queued_slides(engine: Engine, empty_bucket: ObjectStore) -> None:
    manifest = _manifest()
    manifest["slides"][1]["fields"][0] |= {"cells": [{"box": [1, 2, 30, 40]}], "sha256": "AB" * 32}
    manifest["slides"][1]["fields"][1] |= {"kind": "crop"}
    manifest["slides"][1] |= {"stain": "Diff Quick", "collected_at": "2026-10-25T02:30:00+01:00"}
    manifest["slides"][1] |= {
        "order_number": "R-1",
        "accession_number": "A/2",
        "sample_type": "semen",
        "stain_lot": "L3",
    }
    _upload(empty_bucket, manifest)
    registered = register_batch(engine, empty_bucket, "berlin", "night-1")
    assert (registered.outcome, registered.problems) == (Outcome.NEW, ())
    assert _rows(engine, "select id, batch_code, state, problems, closed_at, received_on from batch") == [
        (registered.batch_key, "night-1", "analysing", [], None, datetime.now(UTC).date())
    ]
    slides = "select position, slide_code, specimen, replicate, stain, um_per_px, collected_at from slide order by 1"
    assert _rows(engine, slides) == [
        (0, "slide-0", "S-0000", 1, "diff-quik", 0.1, None),
        (1, "slide-1", "S-0000", 2, "diff-quik", 0.1, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ]
    orders = "select order_number, accession_number, sample_type, stain_lot from reporting.slide_day order by slide_id"
    assert _rows(engine, orders) == [(None,) * 4, ("R-1", "A/2", "semen", "L3")]
    fields = _rows(
        engine,
        "select s.slide_code, f.position, f.key, f.sha256, f.kind, f.given_cells"
        " from field f join slide s on s.id = slide_id order by s.position, f.position",
    )
    assert fields[0] == ("slide-0", 0, "slide-0/field-0.jpg", f"{0:064x}", "field", None)
    assert fields[3] == ("slide-1", 0, "slide-1/field-0.jpg", "ab" * 32, "field", [{"box": [1, 2, 30, 40]}])
    assert fields[4][4] == "crop"
    assert len(fields) == 6
    assert _rows(engine, "select count(*) from field where given_cells is null") == [(5,)]
    analyses = _rows(engine, "select a.id, state, release_id from analysis a order by a.id")
    assert analyses == [(i, "queued", "r1") for i in registered.analysis_ids]
    assert len(analyses) == 2


def test_cells_of_the_month_have_their_partition(postgres: Postgres, engine: Engine, empty_bucket: ObjectStore) -> None:
    month = f"cell_{datetime.now(UTC):%Y_%m}"
    with postgres.as_owner(engine) as session:
        session.execute(text(f"drop table {month}"))
    _upload(empty_bucket, _manifest())
    register_batch(engine, empty_bucket, "berlin", "night-1")
    assert _rows(engine, f"select to_regclass('{month}') is not null") == [(True,)]


def test_the_same_content_again_changes_nothing(engine: Engine, empty_bucket: ObjectStore) -> None:
    _upload(empty_bucket, _manifest())
    first = register_batch(engine, empty_bucket, "berlin", "night-1")
    again = register_batch(engine, empty_bucket, "berlin", "night-1")
    other_bytes = json.dumps(dict(reversed(_manifest().items())), indent=4).encode()
    _upload(empty_bucket, b"\xef\xbb\xbf" + other_bytes)  # key order, white space, byte-order mark
    third = register_batch(engine, empty_bucket, "berlin", "night-1")
    assert [r.outcome for r in (first, again, third)] == [Outcome.NEW, Outcome.UNCHANGED, Outcome.UNCHANGED]
    assert (again.analysis_ids, third.analysis_ids) == ((), ())
    assert again.batch_key == third.batch_key == first.batch_key
    counts = "select (select count(*) from slide), (select count(*) from field), (select count(*) from analysis)"
    assert _rows(engine, counts) == [(2, 6, 2)]
    assert sweep_incoming(engine, empty_bucket) == []


def _register_at_once(engine: Engine, store: ObjectStore, batch: str, times: int = 4) -> list[str]:
    start = threading.Barrier(times)

    def register(_: int) -> str:
        start.wait()
        return register_batch(engine, store, "berlin", batch).outcome

    with ThreadPoolExecutor(times) as pool:
        return sorted(pool.map(register, range(times)))


@pytest.mark.parametrize("before", [None, b"{}"], ids=["new", "rejected before"])
def test_registrations_at_the_same_time_make_one_batch(
    engine: Engine, empty_bucket: ObjectStore, before: bytes | None
) -> None:
    for round_ in range(5):
        batch = f"night-{round_}"
        if before is not None:
            _upload(empty_bucket, before, batch=batch)
            assert set(_register_at_once(engine, empty_bucket, batch)) == {Outcome.REJECTED}
        _upload(empty_bucket, _manifest(batch=batch, slides=4, fields=50), batch=batch)
        outcomes = _register_at_once(engine, empty_bucket, batch)
        assert outcomes == [Outcome.NEW, *[Outcome.UNCHANGED] * 3]
    counts = "select (select count(*) from batch), (select count(*) from slide), (select count(*) from analysis)"
    assert _rows(engine, counts) == [(5, 20, 20)]
    rejections = "select count(*) from audit_event where kind = 'manifest_rejected'"
    assert _rows(engine, rejections) == [(0 if before is None else 5,)]


def test_other_content_under_the_same_id_is_refused(engine: Engine, empty_bucket: ObjectStore) -> None:
    _upload(empty_bucket, _manifest())
    first = register_batch(engine, empty_bucket, "berlin", "night-1")
    before = _rows(engine, "select * from batch"), _rows(engine, "select * from slide order by id")
    _upload(empty_bucket, _manifest(slides=3))
    swept = sweep_incoming(engine, empty_bucket)
    assert [(r.outcome, r.batch_key, r.analysis_ids) for r in swept] == [(Outcome.REFUSED, first.batch_key, ())]
    assert (_rows(engine, "select * from batch"), _rows(engine, "select * from slide order by id")) == before
    notice = _notice(empty_bucket, "refused")
    assert [p["reason"] for p in notice["problems"]] == ["manifest_other_content"]
    refusals = "select batch_id from audit_event where kind = 'manifest_refused'"
    assert _rows(engine, refusals) == [(first.batch_key,)]

    register_batch(engine, empty_bucket, "berlin", "night-1")  # a repeated hint
    assert _rows(engine, refusals) == [(first.batch_key,)]
    assert sweep_incoming(engine, empty_bucket) == []

    _upload(empty_bucket, b"not json")  # wrong content over a good batch is refused too, never rejects it
    assert register_batch(engine, empty_bucket, "berlin", "night-1").outcome is Outcome.REFUSED
    assert {p["reason"] for p in _notice(empty_bucket, "refused")["problems"]} == {
        "manifest_other_content",
        "manifest_not_json",
    }
    assert _rows(engine, "select state from batch") == [("analysing",)]

    _upload(empty_bucket, _manifest())  # the registered content is back: nothing is refused any more
    assert register_batch(engine, empty_bucket, "berlin", "night-1").outcome is Outcome.UNCHANGED
    assert empty_bucket.stat("results/berlin/night-1/refused.json") is None


def test_a_rejected_batch_says_everything_and_is_replaced_by_a_corrected_one(
    engine: Engine, empty_bucket: ObjectStore
) -> None:
    wrong = _manifest()
    wrong["slides"][0]["um_per_px"] = 40
    wrong["slides"][1]["specimen"] = "Anna_Schmidt"
    _upload(empty_bucket, wrong)
    rejected = register_batch(engine, empty_bucket, "berlin", "night-1")
    expected = [("slides[0].um_per_px", "um_per_px_absurd"), ("slides[1].specimen", "personal_data")]
    assert rejected.outcome is Outcome.REJECTED
    assert [(p.path, p.reason) for p in rejected.problems] == expected
    [(state, problems, closed)] = _rows(engine, "select state, problems, closed_at is not null from batch")
    assert (state, [(p["path"], p["reason"]) for p in problems], closed) == ("rejected", expected, True)
    notice = _notice(empty_bucket, "rejected")
    assert (notice["lab"], notice["batch_id"], notice["problems"]) == ("berlin", "night-1", problems)
    assert "Schmidt" not in json.dumps([notice, _rows(engine, "select detail from audit_event")])
    assert sweep_incoming(engine, empty_bucket) == []  # once is enough

    wrong["slides"][0]["um_per_px"] = 0.1
    _upload(empty_bucket, wrong)  # half corrected
    assert [len(r.problems) for r in sweep_incoming(engine, empty_bucket)] == [1]
    assert len(_notice(empty_bucket, "rejected")["problems"]) == 1

    _upload(empty_bucket, _manifest())
    [accepted] = sweep_incoming(engine, empty_bucket)
    assert (accepted.outcome, accepted.batch_key, len(accepted.analysis_ids)) == (Outcome.NEW, rejected.batch_key, 2)
    assert _rows(engine, "select state, problems, closed_at from batch") == [("analysing", [], None)]
    assert empty_bucket.stat("results/berlin/night-1/rejected.json") is None


def test_without_an_active_release_the_batch_waits_in_the_store(engine: Engine, empty_bucket: ObjectStore) -> None:
    with transaction(engine) as session:
        session.execute(text("update model_release set active = false"))
    _upload(empty_bucket, _manifest())
    with pytest.raises(NoActiveRelease, match="morphbatch release install") as raised:
        register_batch(engine, empty_bucket, "berlin", "night-1")
    assert isinstance(raised.value, OutageError)
    assert _rows(engine, "select count(*) from batch") == [(0,)]
    with transaction(engine) as session:
        session.execute(text("update model_release set active = true"))
    assert [r.outcome for r in sweep_incoming(engine, empty_bucket)] == [Outcome.NEW]


def test_a_manifest_that_is_not_there_yet(engine: Engine, empty_bucket: ObjectStore) -> None:
    empty_bucket.put("incoming/berlin/night-1/slide-0/field-0.jpg", b".")
    with pytest.raises(ObjectMissing):
        register_batch(engine, empty_bucket, "berlin", "night-1")
    assert sweep_incoming(engine, empty_bucket) == []
    assert _rows(engine, "select count(*) from batch") == [(0,)]


def test_one_bad_batch_never_stops_the_others(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for batch in ("a", "b", "c"):
        _upload(empty_bucket, _manifest("oslo", batch), "oslo", batch)
    _upload(empty_bucket, b"{", "oslo", "broken")
    _upload(empty_bucket, _manifest("Oslo", "A"), "Oslo", "A")  # a name that cannot be used
    original = ObjectStore.get

    def get(self: ObjectStore, key: str, *, max_bytes: int) -> bytes:
        if key == "incoming/oslo/b/manifest.json":
            raise RuntimeError("a fault of ours")
        return original(self, key, max_bytes=max_bytes)

    monkeypatch.setattr(ObjectStore, "get", get)
    with pytest.raises(SweepIncomplete) as raised:
        sweep_incoming(engine, empty_bucket)
    assert list(raised.value.errors) == ["incoming/oslo/b/manifest.json"]
    assert {r.batch_id: r.outcome for r in raised.value.registered} == {
        "a": Outcome.NEW,
        "c": Outcome.NEW,
        "broken": Outcome.REJECTED,
    }
    monkeypatch.undo()
    assert [(r.batch_id, r.outcome) for r in sweep_incoming(engine, empty_bucket)] == [("b", Outcome.NEW)]


@pytest.mark.parametrize("odd", [".", "..", "", "a\x07b", "a\u2028"])
def test_a_folder_that_no_request_can_name_stops_nobody(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    for lab in ("berlin", "oslo"):
        _upload(empty_bucket, _manifest(lab, "n"), lab, "n")
    listed = ObjectStore.list_folders

    def with_an_odd_name(self: ObjectStore, prefix: str) -> list[str]:
        # On AWS a client that joins paths carelessly leaves such keys; the embedded servers cannot hold them.
        assert prefix in {"incoming/", "incoming/berlin/", "incoming/oslo/"}
        return [odd, *listed(self, prefix)]

    monkeypatch.setattr(ObjectStore, "list_folders", with_an_odd_name)
    assert {r.lab for r in sweep_incoming(engine, empty_bucket)} == {"berlin", "oslo"}
    assert unusable_uploads(empty_bucket) == [f"lab {odd!r}", f"lab berlin, batch {odd!r}", f"lab oslo, batch {odd!r}"]


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), StoreUnavailable("500 for this prefix")])
def test_a_lab_that_cannot_be_listed_stops_no_other(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for lab in ("amman", "berlin", "oslo"):
        _upload(empty_bucket, _manifest(lab, "n"), lab, "n")
    listed = ObjectStore.list_folders

    def failing(self: ObjectStore, prefix: str) -> Iterator[str]:
        if prefix == "incoming/amman/":
            raise error
        return listed(self, prefix)

    monkeypatch.setattr(ObjectStore, "list_folders", failing)
    with pytest.raises(SweepIncomplete) as raised:
        sweep_incoming(engine, empty_bucket)
    assert list(raised.value.errors) == ["incoming/amman/"]
    assert {r.lab for r in raised.value.registered} == {"berlin", "oslo"}


def test_a_lab_that_cannot_be_told_stops_no_other(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upload(empty_bucket, _manifest("Amman", "N"), "Amman", "N")
    _upload(empty_bucket, _manifest("berlin", "n"), "berlin", "n")

    def refusing(*_: object) -> None:
        raise StoreRefused("read only")

    monkeypatch.setattr("services.intake.uploads._tell_once", refusing)
    with pytest.raises(SweepIncomplete) as raised:
        sweep_incoming(engine, empty_bucket)
    assert list(raised.value.errors) == ["incoming/Amman/N/manifest.json"]
    assert [r.lab for r in raised.value.registered] == ["berlin"]


def test_a_batch_that_cannot_be_named_has_a_notice_and_no_row(engine: Engine, empty_bucket: ObjectStore) -> None:
    for batch in ("Night-1", "anna-schmidt"):
        _upload(empty_bucket, _manifest("oslo", batch), "oslo", batch)
        with pytest.raises(BadBatchName) as raised:
            register_batch(engine, empty_bucket, "oslo", batch)
        assert batch not in str(raised.value)
    assert sweep_incoming(engine, empty_bucket) == []
    assert _rows(engine, "select (select count(*) from lab), (select count(*) from batch)") == [(0, 0)]
    for batch in ("Night-1", "anna-schmidt"):
        assert [p["reason"] for p in _notice(empty_bucket, "rejected", "oslo", batch)["problems"]] == ["bad_batch_name"]
    empty_bucket.put("results/oslo/Night-1/rejected.json", b"{}")
    sweep_incoming(engine, empty_bucket)
    assert _notice(empty_bucket, "rejected", "oslo", "Night-1") == {}  # told once, not every minute


def test_a_batch_settled_long_ago_is_not_asked_for_again(engine: Engine, empty_bucket: ObjectStore) -> None:
    _upload(empty_bucket, _manifest())
    register_batch(engine, empty_bucket, "berlin", "night-1")
    _upload(empty_bucket, _manifest(slides=3))
    closed = datetime.now(UTC) - timedelta(days=8)
    with transaction(engine) as session:
        session.execute(text("update batch set state = 'complete', closed_at = :at"), {"at": closed})
    assert sweep_incoming(engine, empty_bucket) == []
    with transaction(engine) as session:
        session.execute(text("update batch set closed_at = now()"))
    assert [r.outcome for r in sweep_incoming(engine, empty_bucket)] == [Outcome.REFUSED]


def test_a_manifest_too_large_to_read_is_rejected(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.intake.registration.MAX_MANIFEST_BYTES", 1000)
    _upload(empty_bucket, _manifest(fields=50))
    assert [p.reason for p in register_batch(engine, empty_bucket, "berlin", "night-1").problems] == [
        "manifest_too_large"
    ]
    assert sweep_incoming(engine, empty_bucket) == []


def test_the_notice_and_the_rows_come_together(
    engine: Engine, empty_bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails when the notice is written must not leave a rejected batch that nobody is told of."""
    _upload(empty_bucket, b"[]")

    def put(*_: object) -> None:
        raise OutageError("the store went away")

    monkeypatch.setattr(ObjectStore, "put", put)
    with pytest.raises(OutageError):
        register_batch(engine, empty_bucket, "berlin", "night-1")
    assert _rows(engine, "select count(*) from batch") == [(0,)]
    monkeypatch.undo()
    assert [r.outcome for r in sweep_incoming(engine, empty_bucket)] == [Outcome.REJECTED]
    assert _notice(empty_bucket, "rejected")["problems"][0]["reason"] == "manifest_not_json"


def test_ten_thousand_fields_are_registered_in_few_statements(engine: Engine, empty_bucket: ObjectStore) -> None:
    _upload(empty_bucket, _manifest(slides=50, fields=200))
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    register_batch(engine, empty_bucket, "berlin", "night-1")
    assert len(statements) < 50, "one for each field takes minutes"
    assert _rows(engine, "select count(*) from field") == [(10_000,)]
