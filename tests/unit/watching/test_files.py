"""Alerts and dashboards: right PromQL, each alert fires in a case of its own and has its section in the runbook."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from services import metrics
from tests.places import CHECKOUT
from tests.watching import WATCHING, alerts, dashboards, expressions

RUNBOOK = (CHECKOUT / "docs" / "runbook.md").read_text(encoding="utf-8")
PARTS = ("**It means:**", "**To see it:**", "**To fix it:**")


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own tool, on PATH or as `make promtool` leaves it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = shutil.which("promtool", path=f"{cache}/morphbatch/bin") or shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: `make promtool` builds it (needs Go)")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(WATCHING / "alerts.yaml"))
    run(promtool, "test", "rules", str(WATCHING / "alerts_test.yaml"))


def test_every_panel_asks_in_promql(promtool: str, tmp_path: Path) -> None:
    asked = sorted({expression for _, expression in expressions()})
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    run(promtool, "check", "rules", str(path))


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_fires_in_a_case_and_leads_to_its_section_of_the_runbook(alert: str) -> None:
    cases = (WATCHING / "alerts_test.yaml").read_text(encoding="utf-8")
    assert f'alertname="{alert}"' in cases
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert found, "no section"
    places = [found.group(1).find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (Morphbatch\w+)$", RUNBOOK, re.MULTILINE)) == alerts().keys()


@pytest.mark.parametrize("file", dashboards())
def test_a_dashboard_can_be_loaded_into_any_grafana(file: str) -> None:
    board = dashboards()[file]
    assert board["uid"] == f"morphbatch-{file.removesuffix('.json')}"
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
    for panel in board["panels"]:
        assert panel["description"] or panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_no_alert_is_named_twice() -> None:
    document = yaml.safe_load((WATCHING / "alerts.yaml").read_text(encoding="utf-8"))
    assert sum(len(group["rules"]) for group in document["groups"]) == len(alerts())


def test_the_page_of_the_metrics_has_each_and_no_other() -> None:
    declared = set()
    for metric in vars(metrics).values():
        if isinstance(metric, metrics.DatabaseGauge):
            declared.add(metric.name)
        elif isinstance(metric, MetricWrapperBase):
            (family,) = metric.collect()
            declared.add(f"{family.name}_total" if family.type == "counter" else family.name)
    page = (CHECKOUT / "docs" / "watching.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(morphbatch_\w+)`", page)) == declared
