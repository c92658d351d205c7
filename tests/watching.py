"""The files of `deploy/watching`, and what their expressions ask for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.places import CHECKOUT

WATCHING = CHECKOUT / "deploy" / "watching"

_NAME = re.compile(r"\b(?:morphbatch|nv)_\w+")
_SELECTED = re.compile(r"\b((?:morphbatch|nv)_\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*[=!]~?")


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert's rule by its name."""
    document = yaml.safe_load((WATCHING / "alerts.yaml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by its file's name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in _files("dashboards/*.json")}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of an alert or a panel, and whose it is."""
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for file, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{file}: {panel['title']}", target["expr"]


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics that it asks for."""
    return set(_NAME.findall(expression))


def labels_of(expression: str) -> Iterator[tuple[str, str]]:
    """The metrics that it selects by labels, with each label."""
    for name, within in _SELECTED.findall(expression):
        for label in _LABEL.findall(within):
            yield name, label


def _files(pattern: str) -> list[Path]:
    found = sorted(WATCHING.glob(pattern))
    assert found
    return found
