"""`morphbatch submit` into a real object store and database."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from services.cli.submit import commands
from services.database.session import transaction
from services.intake.folder import read_folder
from services.intake.registration import Outcome, register_batch
from services.intake.upload import BatchExists, ChangedWhileUploading, UploadBroken, upload
from services.settings import load_settings
from services.storage import ObjectInfo, ObjectStore, StoreUnavailable
from tests.integration.servers import S3Server
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides of ten fields."""
    night = tmp_path / "night"
    for slide in ("S-1", "S-2"):
        (night / slide).mkdir(parents=True)
        for n in range(10):
            (night / slide / f"field-{n}.jpg").write_bytes(os.urandom(1000))
    return night


class _Sent:
    """Counts what is put, and fails from some put on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_after: int = 10**9) -> None:
        self.keys: list[str] = []
        original, lock = ObjectStore.put_file, threading.Lock()

        def put_file(store: ObjectStore, key: str, path: Path, content_type: str = "") -> ObjectInfo:
            with lock:
                if len(self.keys) >= fail_after:
                    raise StoreUnavailable("the store went away")
                self.keys.append(key)
            return original(store, key, path, content_type)

        monkeypatch.setattr(ObjectStore, "put_file", put_file)


def test_what_is_uploaded_registers_as_it_is(engine: Engine, empty_bucket: ObjectStore, folder: Path) -> None:
    delivery = read_folder(folder, lab="berlin", um_per_px=0.1)
    advanced: list[int] = []
    upload(empty_bucket, delivery, advanced.append)
    assert sum(advanced) == delivery.size == 20_000
    registered = register_batch(engine, empty_bucket, "berlin", delivery.manifest.batch_id)
    assert (registered.outcome, len(registered.analysis_ids)) == (Outcome.NEW, 2)
    for file in delivery.files:
        key = f"incoming/berlin/{delivery.manifest.batch_id}/{file.key}"
        assert empty_bucket.get(key, max_bytes=2000) == file.path.read_bytes()
    with transaction(engine) as session:
        fingerprint = session.execute(text("select manifest_sha256 from batch")).scalar_one()
    assert fingerprint == delivery.manifest.fingerprint()
    upload(empty_bucket, delivery)
    again = register_batch(engine, empty_bucket, "berlin", delivery.manifest.batch_id)
    assert again.outcome is Outcome.UNCHANGED


def test_a_broken_upload_goes_on_where_it_was(
    empty_bucket: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1)
    with monkeypatch.context() as patch:
        _Sent(patch, fail_after=7)
        with pytest.raises(UploadBroken, match="rerun the same command to resume"):
            upload(empty_bucket, delivery)
    there = {found.key for found in empty_bucket.list("incoming/")}
    assert len(there) == 7
    assert empty_bucket.stat("incoming/berlin/n-1/manifest.json") is None

    damaged = sorted(there)[0]
    empty_bucket.put(damaged, b"?" * 1000)  # of the right size, with other content
    sent, advanced = _Sent(monkeypatch), list[int]()
    upload(empty_bucket, delivery, advanced.append)
    assert len(sent.keys) == 20 - 7 + 1
    assert damaged in sent.keys
    assert sum(advanced) == delivery.size
    assert empty_bucket.stat("incoming/berlin/n-1/manifest.json") is not None


def test_a_file_that_changes_meanwhile_stops_the_upload(empty_bucket: ObjectStore, folder: Path) -> None:
    delivery = read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1)
    (folder / "S-1" / "field-3.jpg").write_bytes(b"something else")
    with pytest.raises(ChangedWhileUploading, match=r"field-3\.jpg"):
        upload(empty_bucket, delivery)
    assert empty_bucket.stat("incoming/berlin/n-1/manifest.json") is None


def test_a_batch_that_is_there_is_never_overwritten(engine: Engine, empty_bucket: ObjectStore, folder: Path) -> None:
    first = read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1)
    upload(empty_bucket, first)
    kept = {found.key: found.etag for found in empty_bucket.list("incoming/")}
    (folder / "S-1" / "field-0.jpg").write_bytes(b"another picture")
    changed = read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1)
    with pytest.raises(BatchExists, match="--batch"):
        upload(empty_bucket, changed)
    assert {found.key: found.etag for found in empty_bucket.list("incoming/")} == kept


def test_a_rejected_batch_may_be_corrected(engine: Engine, empty_bucket: ObjectStore, folder: Path) -> None:
    empty_bucket.put("incoming/berlin/n-1/manifest.json", b"{}")
    assert register_batch(engine, empty_bucket, "berlin", "n-1").outcome is Outcome.REJECTED
    upload(empty_bucket, read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1))
    assert register_batch(engine, empty_bucket, "berlin", "n-1").outcome is Outcome.NEW


@pytest.fixture
def submit(
    rclone: S3Server, empty_bucket: ObjectStore, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """Runs the command against the test's servers; where no broker is asked for, none listens."""
    for name, value in {
        "MORPHBATCH_HOME": str(tmp_path),
        "MORPHBATCH_S3_ENDPOINT": rclone.settings.s3_endpoint,
        "MORPHBATCH_S3_BUCKET": empty_bucket.bucket,
        "MORPHBATCH_S3_ACCESS_KEY": rclone.settings.s3_access_key,
        "MORPHBATCH_S3_SECRET_KEY": rclone.settings.s3_secret_key.get_secret_value(),
        "MORPHBATCH_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "MORPHBATCH_BROKER_URL": "redis://127.0.0.1:9/0",
    }.items():
        monkeypatch.setenv(name, value)
    load_settings.cache_clear()

    def run(*arguments: str, broker: bool = True) -> Result:
        if broker:  # one that takes the hint; a dead one costs seconds until the client gives up
            monkeypatch.setattr("services.dispatch.Publisher.intake_batch", lambda *_: None)
        return CliRunner().invoke(commands, list(arguments))

    yield run
    load_settings.cache_clear()


def test_the_command_prints_the_batch_and_notes_a_broker_that_is_down(
    submit: Any, empty_bucket: ObjectStore, folder: Path
) -> None:
    (folder / "notes.txt").touch()
    result = submit(str(folder), "--lab", "berlin", "--um-per-px", "0.1", broker=False)
    assert result.exit_code == 0, result.output
    batch = result.stdout.strip()
    assert empty_bucket.stat(f"incoming/berlin/{batch}/manifest.json") is not None
    assert "left out: notes.txt: not an image" in result.stderr
    assert "the broker is down" in result.stderr
    as_json = submit(str(folder), "--lab", "berlin", "--um-per-px", "0.1", "--json")
    assert json.loads(as_json.stdout) == {
        "lab": "berlin",
        "batch": batch,
        "slides": 2,
        "fields": 20,
        "bytes": 20_000,
        "state": "uploaded",
        "left_out": [{"file": "notes.txt", "image": False, "why": "not an image"}],
    }


def test_the_command_shows_every_problem_and_uploads_nothing(
    submit: Any, empty_bucket: ObjectStore, folder: Path
) -> None:
    result = submit(str(folder), "--lab", "Berlin")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "um_per_px_missing" in result.stderr
    assert "slides[1].um_per_px (S-2)" in result.stderr
    assert "lab" in result.stderr
    as_json = submit(str(folder), "--lab", "berlin", "--json")
    assert as_json.exit_code == 2
    assert [p["reason"] for p in json.loads(as_json.stdout)["problems"]] == ["um_per_px_missing"] * 2
    assert list(empty_bucket.list("")) == []


@pytest.mark.parametrize(("ends", "code"), [("complete", 0), ("complete_with_errors", 1)])
def test_wait_follows_the_batch_to_its_end(
    submit: Any, engine: Engine, empty_bucket: ObjectStore, folder: Path, ends: str, code: int
) -> None:
    def service() -> None:
        wait_until(lambda: empty_bucket.stat("incoming/berlin/n-1/manifest.json"), what="the manifest")
        register_batch(engine, empty_bucket, "berlin", "n-1")
        with transaction(engine) as session:
            registered = session.execute(text("select clock_timestamp()")).scalar_one()
        asked = text(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and query_start > :registered"
        )

        def command_has_asked() -> bool:
            with transaction(engine) as session:
                return session.execute(asked, {"registered": registered}).scalar_one() > 0

        wait_until(command_has_asked, what="the command sees a batch that goes on")
        with transaction(engine) as session:
            session.execute(text("update batch set state = :state, closed_at = now()"), {"state": ends})

    # Rejected before: the command must not take that for the end of what it sends now.
    empty_bucket.put("incoming/berlin/n-1/manifest.json", b"{}")
    register_batch(engine, empty_bucket, "berlin", "n-1")
    empty_bucket.delete("incoming/berlin/n-1/manifest.json")
    thread = threading.Thread(target=service)
    thread.start()
    result = submit(str(folder), "--lab", "berlin", "--batch", "n-1", "--um-per-px", "0.1", "--wait", "--json")
    thread.join()
    assert json.loads(result.stdout)["state"] == ends
    assert result.exit_code == code


def test_wait_ends_when_the_service_rejects_the_manifest(
    submit: Any, engine: Engine, empty_bucket: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service with stricter rules than this command: it must not wait for ever."""
    delivery = read_folder(folder, lab="berlin", batch_id="n-1", um_per_px=0.1)
    upload(empty_bucket, delivery)
    with monkeypatch.context() as patch:
        patch.setattr("services.intake.manifest.MAX_UM_PER_PX", 0.05)
        assert register_batch(engine, empty_bucket, "berlin", "n-1").outcome is Outcome.REJECTED
    result = submit(str(folder), "--lab", "berlin", "--batch", "n-1", "--um-per-px", "0.1", "--wait", "--json")
    assert (json.loads(result.stdout)["state"], result.exit_code) == ("rejected", 1)
