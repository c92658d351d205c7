"""The client and `morphbatch submit --api` against the service as it runs."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from services.access.scopes import Scope
from services.batches.closing import close_batch
from services.cli.submit import commands
from services.client.client import Client, Refused, Unreachable, Upload
from services.client.submit import TokenUnreadable, read_token
from services.database.session import transaction
from services.intake.folder import read_folder
from services.intake.registration import register_batch
from services.intake.upload import upload
from tests.integration.api.serving import Api, announcement, free_port, serving_api
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres, S3Server

ROWS = (
    "select b.manifest_sha256, b.state, s.position, s.slide_code, s.specimen, s.replicate, s.stain, s.um_per_px,"
    " s.collected_at, f.position, f.key, f.sha256, f.kind, f.given_cells, a.state, a.release_id, a.version"
    " from batch b join slide s on s.batch_id = b.id join field f on f.slide_id = s.id"
    " join analysis a on a.slide_id = s.id order by s.position, f.position"
)


@pytest.fixture
def api(engine: Engine, rclone: S3Server) -> Any:
    with serving_api(engine, rclone.new_bucket(), rclone.settings) as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    night = tmp_path / "night"
    for slide in ("S-1", "S-2"):
        (night / slide).mkdir(parents=True)
        for n in range(3):
            (night / slide / f"Feld {n} (ü).jpg").write_bytes(os.urandom(1000))
    return night


def rows_of(engine: Engine) -> list[tuple[Any, ...]]:
    with transaction(engine) as session:
        return [tuple(row) for row in session.execute(text(ROWS))]


def test_one_folder_gives_the_same_rows_over_http_and_by_s3(
    api: Api, folder: Path, tmp_path: Path, postgres: Postgres, rclone: S3Server
) -> None:
    with postgres.new_database(like=api.engine) as other:
        by_s3 = rclone.new_bucket()
        delivery = read_folder(
            folder, lab="north", batch_id="n-1", um_per_px=0.1, collected_at="2026-11-23T08:40:00+01:00"
        )
        upload(by_s3, delivery)
        register_batch(other, by_s3, "north", "n-1")
        expected = rows_of(other)
        objects = {found.key: (found.size, found.etag) for found in by_s3.list("")}
    (tmp_path / "token").write_text(api.token("north", Scope.UPLOAD) + "\n")
    arguments = [str(folder), "--lab", "north", "--batch", "n-1", "--um-per-px", "0.1"]
    arguments += [
        "--collected-at",
        "2026-11-23T08:40:00+01:00",
        "--api",
        api.url,
        "--token-file",
        str(tmp_path / "token"),
    ]
    for _ in range(2):  # rerun, nothing changes
        done = CliRunner().invoke(commands, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["state"] == "uploaded"
    assert rows_of(api.engine) == expected
    assert len(expected) == 6
    assert {found.key: (found.size, found.etag) for found in api.store.list("")} == objects


def test_the_client_follows_a_batch_and_saves_its_results(full: Night, tmp_path: Path, rclone: S3Server) -> None:
    with (
        serving_api(full.engine, full.store, rclone.settings) as api,
        Client(api.url.removesuffix("/v1"), api.token("berlin")) as client,
    ):
        close_batch(full.engine, full.store, full.batch_key)
        assert [state.state for state in client.follow("night-1")] == ["complete_with_errors"]
        assert [batch["batch_id"] for batch in client.batches()] == ["night-1"]
        assert client.report("night-1") == json.loads(full.get("report.json"))
        for name in client.files("night-1"):
            client.download("night-1", name, tmp_path / "file")
            assert (tmp_path / "file").read_bytes() == full.get(name)
        assert client.requeue("night-1", [], "uploaded again") == ["slide-2"]
        client.void("night-1", "sent twice")
        assert client.state("night-1").document["voided"]["why"] == "sent twice"
        client.restore("night-1", "it was not")
        with pytest.raises(Refused, match="unknown_batch") as refused:
            client.state("night-2")
        assert refused.value.status == 404
        with pytest.raises(Refused, match="unknown_part"):
            client.download("night-1", "nothing.csv", tmp_path / "none")
        assert not (tmp_path / "none").exists()


def test_every_fault_of_a_batch_is_told(api: Api) -> None:
    document, _ = announcement()
    document["slides"][0]["um_per_px"] = 400
    with Client(api.url, api.token("north")) as client, pytest.raises(Refused, match="um_per_px_absurd") as refused:
        client.announce(document)
    assert refused.value.code == "manifest_rejected"


def test_what_is_down_is_asked_again_and_then_given_up(tmp_path: Path) -> None:
    pauses: list[float] = []
    with Client(f"http://127.0.0.1:{free_port()}", "mbt_x", pause=pauses.append) as client:
        with pytest.raises(Unreachable, match="6 attempts"):
            client.state("night-1")
        assert pauses == [1, 2, 4, 8, 16]
        (tmp_path / "field").write_bytes(b"x")
        with pytest.raises(Refused, match="upload of"):
            client.upload(Upload("field", "no-url", {}), tmp_path / "field")


def test_a_service_that_asks_to_wait_is_asked_again_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503),
        httpx.Response(200, json={"events": []}),
    ]
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: answers.pop(0))
    pauses: list[float] = []
    with Client("http://x", "mbt_x", pause=pauses.append) as client:
        assert client.events("night-1") == []
    assert pauses == [7, 2]


@pytest.mark.parametrize("content", [b"", b"secret", b"mbt_a b", b"\xff", None])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(TokenUnreadable):
        read_token(tmp_path / "token")
