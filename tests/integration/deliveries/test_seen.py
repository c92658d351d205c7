"""What an operator sees of deliveries: in the commands, in the night, and in the metrics."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text
from typer.testing import CliRunner

from services.batches.closing import close_batch
from services.batches.night import read_night
from services.cli.deliveries import commands as deliveries
from services.cli.targets import commands as lab
from services.database.session import transaction
from services.deliveries import sending
from services.deliveries.queries import deliveries_now
from services.settings import Settings
from tests.integration.deliveries.listeners import acknowledged, mllp_listener
from tests.integration.reporting.reporting_night import Night

AA = acknowledged("AA")


@pytest.fixture(autouse=True)
def settings(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands ask this database."""
    url = night.engine.url.render_as_string(hide_password=False)
    monkeypatch.setattr("services.settings.load_settings", lambda: Settings(database_url=url))


def test_from_a_target_to_a_refusal_and_back(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    runner = CliRunner()
    with mllp_listener(ca, acknowledged("AE", "no order"), AA) as listener:
        options = ["berlin", "--mllp", listener.address, "--ca", str(ca_file)]
        set_up = runner.invoke(lab, options)
        assert set_up.exit_code == 0, set_up.output
        assert "secret" not in set_up.output
        close_batch(finished.engine, finished.store, finished.batch_key)
        waiting = runner.invoke(deliveries, ["--json"])
        assert waiting.exit_code == 0
        assert [row["state"] for row in json.loads(waiting.output)] == ["waiting", "waiting"]
        with transaction(finished.engine) as session:
            session.execute(text("update delivery set created_at = now() - interval '2 hours' where id = 1"))
            now = deliveries_now(session)
        assert (now.waiting, now.stopped) == (2, 0)
        assert now.oldest_s == pytest.approx(7200, abs=120)

        sending.send_due(finished.engine, finished.store)
        stopped = runner.invoke(deliveries, [], env={"COLUMNS": "300"})
        assert stopped.exit_code == 1
        assert "AE no order" in stopped.output
        assert [
            target["stopped"] for target in json.loads(runner.invoke(deliveries, ["targets", "--json"]).output)
        ] == [1]
        [line] = [
            words for label, words in read_night(finished.engine, datetime.now(UTC)).lines() if label == "batches"
        ]
        assert line.endswith("; deliveries to LIMS 1 stopped: `morphbatch deliveries`")

        assert runner.invoke(deliveries, ["retry"]).output == "1 deliveries are sent again within seconds\n"
        sending.send_due(finished.engine, finished.store)
        assert runner.invoke(deliveries, []).output == "nothing waits to be delivered, and nothing is stopped\n"
        [line] = [
            words for label, words in read_night(finished.engine, datetime.now(UTC)).lines() if label == "batches"
        ]
        assert "LIMS" not in line


def test_a_webhook_s_secret_is_shown_once_and_stands_in_no_list(finished: Night) -> None:
    runner = CliRunner()
    shown = runner.invoke(lab, ["berlin", "--webhook", "https://lims.example.org/in"])
    assert shown.exit_code == 0, shown.output
    secret = shown.output.split()[-1]
    assert secret.startswith("whsec_")
    assert secret not in runner.invoke(deliveries, ["targets", "--json"]).output
    with transaction(finished.engine) as session:
        assert secret not in str(session.execute(text("select detail from audit_event")).all())
    removed = runner.invoke(lab, ["berlin", "--webhook", "https://lims.example.org/in", "--remove"])
    assert removed.exit_code == 0
    assert not json.loads(runner.invoke(deliveries, ["targets", "--json"]).output)[0]["active"]


@pytest.mark.parametrize("options", [[], ["--webhook", "https://a.example", "--mllp", "a:1"]])
def test_one_target_is_named(options: list[str]) -> None:
    assert CliRunner().invoke(lab, ["berlin", *options]).exit_code == 2
