"""Revisions of a report on a real Postgres and object store: none is lost, no number is used for two contents."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from services.batches.closing import close_batch
from services.batches.requeue import requeue
from services.database.session import transaction
from services.database.states import BatchState
from services.reporting.reading import read_report
from services.storage import StoreUnavailable
from tests.integration.reporting.reporting_night import Night

OLD = "revisions/1/"


def sent_round(night: Night, counts: dict[str, int], version: int = 2) -> None:
    """The first slide was asked for again, and has another result."""
    with transaction(night.engine) as session:
        slide, fields = session.execute(
            text("select slide_id, array_agg(id order by id) from field group by slide_id order by 1 limit 1")
        ).one()
    night.analysis(slide, fields, counts, version=version)


def reopened(night: Night) -> None:
    with transaction(night.engine) as session:
        session.execute(text("update batch set state = 'analysing'"))


def issued(night: Night, prefix: str = "") -> dict[str, Any]:
    report: dict[str, Any] = json.loads(night.get(f"{prefix}report.json"))
    return report


def test_another_result_is_another_revision_and_the_one_before_is_kept_whole(full: Night) -> None:
    assert close_batch(full.engine, full.store, full.batch_key) is BatchState.COMPLETE_WITH_ERRORS
    first, before = issued(full), full.results()
    assert (first["revision"], first["replaces"], first["reason"]) == (1, None, None)

    assert requeue(full.engine, full.batch_key, ["slide-0"], by="anna", why="focus corrected") == ["slide-0"]
    with transaction(full.engine) as session:
        session.execute(text("update analysis set state = 'done', cells_classified = 0 where version = 2"))
    assert close_batch(full.engine, full.store, full.batch_key) is BatchState.COMPLETE_WITH_ERRORS

    second, after = issued(full), full.results()
    assert (second["revision"], second["replaces"]) == (2, 1)
    assert second["reason"] == "slide slide-0 sent to be analysed again by anna: focus corrected"
    assert second["issued_at"] >= first["issued_at"]
    slide = second["slides"][0]["analysis"]
    assert (slide["version"], slide["asked_by"], slide["why"]) == (2, "anna", "focus corrected")
    kept = {name.removeprefix(OLD): digest for name, digest in after.items() if name.startswith(OLD)}
    assert kept == before
    assert not [name for name in after if name.startswith("revisions/1/revisions")]


def test_a_closing_that_was_interrupted_before_it_was_recorded_goes_out_under_its_number(full: Night) -> None:
    first = full.write(BatchState.COMPLETE_WITH_ERRORS)  # and the worker is killed before the batch is closed
    before = full.results()
    close_batch(full.engine, full.store, full.batch_key)
    assert (issued(full), full.results()) == (first, before)
    assert first["revision"] == 1


def test_what_was_public_is_kept_though_it_was_never_recorded(full: Night) -> None:
    full.write()  # and the worker is killed; then a slide is sent round again
    sent_round(full, {"Normal": 5})
    close_batch(full.engine, full.store, full.batch_key)
    assert (issued(full)["revision"], issued(full)["replaces"]) == (2, 1)
    assert issued(full, OLD)["slides"][0]["cells"] == 200
    reopened(full)
    sent_round(full, {"Normal": 6}, version=3)
    close_batch(full.engine, full.store, full.batch_key)
    assert (issued(full)["revision"], issued(full)["slides"][0]["cells"]) == (3, 6)
    assert [issued(full, f"revisions/{n}/")["slides"][0]["cells"] for n in (1, 2)] == [200, 5]


def test_a_batch_that_is_closed_again_with_the_same_rows_keeps_its_revision(full: Night) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    before = full.results()
    reopened(full)
    close_batch(full.engine, full.store, full.batch_key)
    assert full.results() == before
    with transaction(full.engine) as session:
        said = session.scalars(text("select detail ->> 'revision' from audit_event where kind = 'batch_closed'")).all()
    assert said == ["1", "1"]


@pytest.mark.parametrize("dies_at", ["copying", "writing", "announcing"])
def test_the_number_does_not_jump_and_nothing_is_lost_wherever_the_store_goes_down(
    full: Night, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    before = full.results()
    reopened(full)
    sent_round(full, {"Normal": 5})
    real_copy, real_put = full.store.copy, full.store.put
    copies: list[str] = []

    def copy(key: str, to: str) -> None:
        copies.append(to)
        if dies_at == "copying" and len(copies) == 3:
            raise StoreUnavailable(key)
        real_copy(key, to)

    def put(key: str, data: bytes, content_type: str = "") -> Any:
        if dies_at == ("announcing" if key.endswith("report.json") else "writing"):
            raise StoreUnavailable(key)
        return real_put(key, data, content_type)

    with monkeypatch.context() as broken:
        broken.setattr(full.store, "copy", copy)
        broken.setattr(full.store, "put", put)
        with pytest.raises(StoreUnavailable):
            close_batch(full.engine, full.store, full.batch_key)
    close_batch(full.engine, full.store, full.batch_key)
    assert (issued(full)["revision"], issued(full)["replaces"]) == (2, 1)
    after = full.results()
    assert {name.removeprefix(OLD): digest for name, digest in after.items() if name.startswith(OLD)} == before


def test_a_report_of_an_earlier_version_is_kept_as_the_revision_that_it_was(full: Night) -> None:
    full.write()
    old = issued(full)
    for name in ("revision", "issued_at", "replaces", "reason"):
        del old[name]
    full.store.put("results/berlin/night-1/report.json", json.dumps(old).encode())
    with transaction(full.engine) as session:
        for _ in range(2):
            session.execute(
                text("insert into audit_event (kind, batch_id, detail) values ('batch_closed', :key, '{}')"),
                {"key": full.batch_key},
            )
    close_batch(full.engine, full.store, full.batch_key)
    assert (issued(full)["revision"], issued(full)["replaces"]) == (3, 2)
    assert issued(full, "revisions/2/") == old


def test_the_report_from_the_database_has_the_issue_once_the_batch_is_closed(full: Night) -> None:
    with transaction(full.engine) as session:
        assert read_report(session, full.batch_key).revision is None
    close_batch(full.engine, full.store, full.batch_key)
    with transaction(full.engine) as session:
        read = read_report(session, full.batch_key)
    assert json.loads(read.as_json())["issued_at"] == issued(full)["issued_at"]


@pytest.mark.parametrize("content", [b"not ours", b"[1, 2]", b'{"lab": "berlin", "slides', b"{}", b""])
def test_what_is_no_report_at_its_place_does_not_keep_a_batch_open(full: Night, content: bytes) -> None:
    full.store.put("results/berlin/night-1/report.json", content, "application/json")
    assert close_batch(full.engine, full.store, full.batch_key) is BatchState.COMPLETE_WITH_ERRORS
    assert (issued(full)["revision"], issued(full)["replaces"]) == (1, None)
