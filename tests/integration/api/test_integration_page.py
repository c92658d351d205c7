"""The lines of docs/integration.md do what the page says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text

from services.access.scopes import Scope
from services.api.v1.problems import STATUS
from services.batches.closing import close_batch
from services.database.models import ModelRelease
from services.database.session import transaction
from tests.integration.api.serving import Api, announcement
from tests.integration.reporting.reporting_night import DOCUMENT
from tests.places import CHECKOUT

PAGE = (CHECKOUT / "docs" / "integration.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="no curl or jq")
@pytest.mark.parametrize("store", ["rclone", "minio"])
def test_the_ten_lines_lead_from_a_token_to_a_result(
    request: pytest.FixtureRequest, store: str, tmp_path: Path
) -> None:
    api: Api = request.getfixturevalue({"rclone": "api", "minio": "api_on_minio"}[store])
    [lines] = re.findall(r"<!-- these lines are run.*?```sh\n(.*?)```", PAGE, re.S)
    assert len(lines.splitlines()) <= 10
    document, files = announcement("night-1")
    (tmp_path / "batch.json").write_text(json.dumps(document))
    for key, data in files.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(data)
    before, after = lines.split('curl -sf -H "$AUTH" "$API/batches/night-1/report"')
    environment = {"API": api.url, "TOKEN": api.token("north", Scope.UPLOAD, Scope.READ), "PATH": "/usr/bin:/bin"}

    def run(script: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run(before)
    assert '"state":"analysing"' in said
    assert '"kind":"batch_registered"' in said
    with transaction(api.engine) as session:  # the work of a night
        session.execute(text("update analysis set state = 'insufficient', started_at = now(), finished_at = now()"))
        session.merge(ModelRelease(id="r1", kind="untrained", active=True, document=DOCUMENT))
        key = session.execute(text("select id from batch")).scalar_one()
    close_batch(api.engine, api.store, key)
    run(lines.splitlines()[0] + '\ncurl -sf -H "$AUTH" "$API/batches/night-1/report"' + after)
    assert json.loads((tmp_path / "report.json").read_text())["batch_id"] == "night-1"
    assert (tmp_path / "slides.csv").read_text().startswith("warning,lab,batch_id,")


def test_the_page_names_every_reason_with_its_status() -> None:
    table = PAGE.split("## Errors")[1].split("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if re.match(r"\| [45]", line)]
    told = {
        (int(code), reason)
        for row in rows
        for code in re.findall(r"\d+", row[1])
        for reason in re.findall(r"`(\w+)`", row[2])
    }
    missing = {(status, reason) for reason, status in STATUS.items() if reason != "bad_request"} - told
    assert not missing
