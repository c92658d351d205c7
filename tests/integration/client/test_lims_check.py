"""`morphbatch lims-check` against the service, as it is and with one thing wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from services.access.scopes import Scope
from services.batches.closing import close_batch
from services.cli.lims_check import commands
from services.client.conformance import NotChecked
from services.database.models import ModelRelease
from services.database.session import transaction
from tests.integration.api.serving import Api, TakesIn, free_port, serving_api
from tests.integration.reporting.reporting_night import DOCUMENT
from tests.integration.servers import S3Server


def works_the_night(publisher: TakesIn) -> None:
    """Have what is announced taken in, analysed and closed at once."""
    taken_in, engine, store = publisher.intake_batch, publisher._engine, publisher._store

    def intake_batch(lab: str, batch_id: str) -> None:
        taken_in(lab, batch_id)
        with transaction(engine) as session:
            session.merge(ModelRelease(id="r1", kind="untrained", active=True, document=DOCUMENT))
            session.execute(text("update analysis set state = 'insufficient', started_at = now(), finished_at = now()"))
            key = session.execute(text("select id from batch")).scalar_one()
        close_batch(engine, store, key)

    publisher.intake_batch = intake_batch  # type: ignore[method-assign]


@pytest.fixture(params=["rclone", "minio"])
def api(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Api]:
    server: S3Server = request.getfixturevalue(request.param)
    with serving_api(engine, server.new_bucket(), server.settings) as served:
        yield served


def checked(url: str, token: str, tmp_path: Path, *more: str) -> Result:
    (tmp_path / "token").write_text(token)
    return CliRunner().invoke(commands, [url, "--token-file", str(tmp_path / "token"), *more], catch_exceptions=False)


def test_an_installation_that_works_passes_every_check(
    api: Api, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    works_the_night(api.publisher)
    done = checked(api.url, api.token("north", Scope.UPLOAD, Scope.READ), tmp_path, "--wait", "20", "--json")
    checks: list[dict[str, Any]] = json.loads(done.stdout)
    unlike = [check for check in checks if check["passed"] is not True]
    if request.node.callspec.params["api"] == "rclone":  # it compares no checksums
        assert [check["name"] for check in unlike] == ["an upload URL is good for the announced bytes alone"]
        assert unlike[0]["passed"] is None
    else:
        assert unlike == []
    assert done.exit_code == 0
    assert len(checks) == 17


def test_what_is_wrong_is_named_and_the_exit_code_says_so(engine: Engine, rclone: S3Server, tmp_path: Path) -> None:
    with serving_api(engine, rclone.new_bucket(), rclone.settings) as api:
        api.publisher.down = True  # no worker takes it in
        done = checked(api.url, api.token("north", Scope.UPLOAD, Scope.READ), tmp_path, "--wait", "1")
        assert done.exit_code == 1
        assert "NOT OK it is taken in: not within 1 s" in done.stdout
        without_read = checked(api.url, api.token("north", Scope.UPLOAD), tmp_path, "--wait", "1")
        assert without_read.exit_code == 1
        assert "NOT OK the token reads the lab's batches: answered 403" in without_read.stdout


def test_a_service_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="ConnectError"):
        checked(f"http://127.0.0.1:{free_port()}", "mbt_aaaaaaaaaa_x", tmp_path)


def test_another_program_fails_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        httpx.Client,
        "send",
        lambda *_, **__: httpx.Response(200, text="<html>", request=httpx.Request("GET", "http://x")),
    )
    monkeypatch.setattr("services.client.conformance.httpx.put", lambda *_, **__: httpx.Response(200))
    done = checked("http://x", "mbt_aaaaaaaaaa_x", tmp_path, "--wait", "1")
    assert done.exit_code == 1
    assert done.stdout.count("NOT OK") >= 12
