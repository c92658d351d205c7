"""A backup as docs/operations.md has it: a new database and a new bucket from it carry on."""

import json
import os
import subprocess
from pathlib import Path

from sqlalchemy import Engine, text

from services.batches.closing import close_batch
from services.batches.due import sweep_database
from services.database.session import transaction
from services.database.states import BatchState
from services.intake.uploads import sweep_incoming
from services.local.postgres import binaries
from services.storage import ObjectStore
from tests.integration.analysis.slides import Hints, drawn, encode, run, submit
from tests.integration.servers import Postgres, S3Server

RESULTS = "results/berlin/night-{}/"


def as_superuser(postgres: Postgres, program: str, *arguments: str) -> None:
    where = ("--host=127.0.0.1", f"--port={postgres.installation.ports['postgres']}", "--username=postgres")
    environment = {**os.environ, "PGPASSWORD": postgres.installation.secrets["postgres_superuser"]}
    done = subprocess.run(
        [str(binaries() / program), *where, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def copied(store: ObjectStore, to: ObjectStore) -> ObjectStore:
    for found in store.list(""):
        to.put(found.key, store.get(found.key, max_bytes=2**26), "application/octet-stream")
    return to


def finish(engine: Engine, store: ObjectStore, analyses: list[int]) -> None:
    """Analyse these slides of one batch and close it."""
    [closing] = {key for analysis_id in analyses if (key := run(engine, store, analysis_id)) is not None}
    assert close_batch(engine, store, closing) is BatchState.COMPLETE


def report(store: ObjectStore, night: int) -> dict[str, object]:
    document: dict[str, object] = json.loads(store.get(RESULTS.format(night) + "report.json", max_bytes=2**22))
    return document


def test_a_new_stack_from_a_backup_carries_on(
    postgres: Postgres, engine: Engine, rclone: S3Server, tmp_path: Path
) -> None:
    store, dump = rclone.new_bucket(), str(tmp_path / "morphbatch.dump")
    one, two, three = (encode(drawn(seed)) for seed in (11, 12, 13))
    ended, running = submit(engine, store, {"a": {"f.png": one}, "b": {"f.png": two}}, batch_id="night-1")
    assert run(engine, store, ended) is None
    with transaction(engine) as session:
        before = session.execute(text("select cells_classified from analysis where id = :id"), {"id": ended}).scalar()
        taken = "update analysis set state = 'running', lease_token = 'gone', lease_until = now() where id = :id"
        session.execute(text(taken), {"id": running})
    engine.dispose()
    as_superuser(postgres, "pg_dump", "--format=custom", f"--file={dump}", str(engine.url.database))

    # Until the server is lost: the first batch ends, and another comes.
    with transaction(engine) as session:
        session.execute(text("update analysis set state = 'queued' where id = :id"), {"id": running})
    finish(engine, store, [running])
    finish(engine, store, submit(engine, store, {"c": {"f.png": three}}, batch_id="night-2"))
    new_store = copied(store, rclone.new_bucket())
    engine.dispose()
    as_superuser(postgres, "pg_restore", "--clean", "--create", "--exit-on-error", "--dbname=postgres", dump)

    hints = Hints()
    assert [batch.batch_id for batch in sweep_incoming(engine, new_store)] == ["night-2"]
    sweep_database(engine, hints, republish_s=60)
    announced = sorted(number for what, number in hints.sent if what == "slide")
    assert running in announced, "its worker is gone, and it runs again"
    finish(engine, new_store, [running])
    finish(engine, new_store, [number for number in announced if number != running])
    with transaction(engine) as session:
        slides = session.execute(
            text("select batch_id, slide_id, state, version, attempts from reporting.slide_result order by 1, 2")
        ).all()
        kept = session.execute(text("select cells_classified from analysis where id = :id"), {"id": ended}).scalar()
    assert slides == [
        ("night-1", "a", "done", 1, 1), ("night-1", "b", "done", 1, 1), ("night-2", "c", "done", 1, 1)
    ]  # fmt: skip
    assert kept == before
    for night in (1, 2):
        # What the lab may have read already is kept, and the report says that it replaces it.
        assert (report(new_store, night)["revision"], report(new_store, night)["replaces"]) == (2, 1)
        assert new_store.stat(RESULTS.format(night) + "revisions/1/report.json") is not None
