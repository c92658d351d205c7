"""The messages of a closed batch in the store: of which specimens, in every revision, and gone with a result."""

import json

import pytest
from sqlalchemy import text

from services.batches.closing import close_batch
from services.batches.requeue import requeue
from services.batches.voiding import restore_batch, void_batch
from services.database.models import ModelRelease
from services.database.session import transaction
from services.intake.labs import set_lab_tests
from tests.integration.reporting.reporting_night import DOCUMENT, Night

MESSAGES = ["specimens/S-01.fhir.json", "specimens/S-01.hl7"]


@pytest.fixture
def trained(night: Night) -> Night:
    """A specimen classified by a trained release, and one that is not."""
    with transaction(night.engine) as session:
        session.add(ModelRelease(id="r2", kind="trained", document=DOCUMENT))
    night.slide(0, {"Normal": 8, "AmorfHead": 192}, release="r2")
    night.slide(1, {"Normal": 9, "AmorfHead": 191}, release="r2", replicate=2)
    night.slide(2, {"Normal": 9, "AmorfHead": 191}, specimen="S-02")
    return night


def files_of(night: Night) -> list[str]:
    return sorted(name for name in night.results() if name.startswith("specimens/"))


def test_results_of_trained_releases_have_messages_that_the_report_lists(trained: Night) -> None:
    close_batch(trained.engine, trained.store, trained.batch_key)
    assert files_of(trained) == MESSAGES
    report = json.loads(trained.get("report.json"))
    assert [name for name in report["files"] if name.startswith("specimens/")] == MESSAGES
    bundle = json.loads(trained.get(MESSAGES[0]))
    assert bundle["identifier"]["value"] == "berlin/night-1/S-01/1"
    assert bundle["timestamp"][:19] == report["issued_at"][:19]
    assert trained.get(MESSAGES[1]).startswith(b"MSH|^~\\&|MORPHBATCH|berlin|")


def test_a_lab_that_tests_gets_all_of_them_marked(trained: Night) -> None:
    set_lab_tests(trained.engine, "berlin", True, by="anna")
    close_batch(trained.engine, trained.store, trained.batch_key)
    assert files_of(trained) == [*MESSAGES, "specimens/S-02.fhir.json", "specimens/S-02.hl7"]
    for name in files_of(trained):
        marked = b'"HTEST"' if name.endswith(".json") else b"|T|2.5.1|"
        assert marked in trained.get(name), name


def test_another_revision_keeps_the_messages_of_the_one_before(trained: Night) -> None:
    close_batch(trained.engine, trained.store, trained.batch_key)
    first = {name: trained.get(name) for name in MESSAGES}
    with transaction(trained.engine) as session:
        session.execute(text("update model_release set active = false where id = 'r1'"))
        session.execute(text("update model_release set active = true where id = 'r2'"))
    requeue(trained.engine, trained.batch_key, ["slide-0"], by="anna", why="focus")
    with transaction(trained.engine) as session:
        session.execute(text("update analysis set state = 'done', cells_classified = 0 where version = 2"))
    close_batch(trained.engine, trained.store, trained.batch_key)
    for name, content in first.items():
        assert trained.get(f"revisions/1/{name}") == content
        assert trained.get(name) != content
    assert "berlin/night-1/S-01/2" in trained.get(MESSAGES[0]).decode()


def test_what_does_not_hold_any_more_is_withdrawn(trained: Night) -> None:
    close_batch(trained.engine, trained.store, trained.batch_key)
    void_batch(trained.engine, trained.batch_key, by="anna", why="sent twice")
    close_batch(trained.engine, trained.store, trained.batch_key)
    assert files_of(trained) == MESSAGES
    resources = [entry["resource"] for entry in json.loads(trained.get(MESSAGES[0]))["entry"]]
    assert {r["status"] for r in resources if "status" in r} == {"entered-in-error"}
    assert not [r for r in resources if "valueQuantity" in r]
    assert b"does not hold any more" in trained.get(MESSAGES[1])
    assert b"batch voided by anna: sent twice" in trained.get(MESSAGES[1])
    assert b"|||||W" in trained.get(MESSAGES[1])
    assert b"|||||R" not in trained.get(MESSAGES[1])
    restore_batch(trained.engine, trained.batch_key, by="anna", why="it was not")
    close_batch(trained.engine, trained.store, trained.batch_key)
    assert b"preliminary" in trained.get(MESSAGES[0])
    assert b"|||||R" in trained.get(MESSAGES[1])


def test_a_result_under_a_release_that_is_not_for_use_withdraws_the_one_before(trained: Night) -> None:
    close_batch(trained.engine, trained.store, trained.batch_key)
    requeue(trained.engine, trained.batch_key, ["slide-0"], by="anna", why="focus")  # under the active one, untrained
    with transaction(trained.engine) as session:
        session.execute(text("update analysis set state = 'done', cells_classified = 0 where version = 2"))
    close_batch(trained.engine, trained.store, trained.batch_key)
    assert files_of(trained) == MESSAGES
    assert b"entered-in-error" in trained.get(MESSAGES[0])
