"""The published JSON Schemas: current, and true of what is read and written."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.json_schema import published_schemas
from tests.places import CHECKOUT

EXAMPLE = json.loads((CHECKOUT / "tests/integration/reporting/example/report.json").read_text())


def published(name: str) -> Draft202012Validator:
    schema = json.loads((CHECKOUT / "docs" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", published_schemas(), ids=str)
def test_the_published_file_is_current(path: Path) -> None:
    assert (CHECKOUT / path).read_text() == published_schemas()[path], "run: python -m services.json_schema"


def test_a_written_report_is_what_its_schema_describes() -> None:
    published("report").validate(EXAMPLE)


@pytest.mark.parametrize(
    "broken",
    [
        {"schema": "morphbatch.report/1"},
        {"warning": None, "state": "finished"},
        {"slides": [{**EXAMPLE["slides"][0], "replicate": 3}]},
        {"slides": [{name: value for name, value in EXAMPLE["slides"][0].items() if name != "regions"}]},
        {"specimens": [{**EXAMPLE["specimens"][0], "agreement": {"assessed": True}}]},
    ],
)
def test_the_schema_of_the_report_refuses_another_document(broken: dict[str, Any]) -> None:
    assert not published("report").is_valid({**EXAMPLE, **broken})


def test_the_manifest_of_the_page_for_a_lims_is_what_its_schema_describes() -> None:
    page = (CHECKOUT / "docs/manifest.md").read_text()
    published("manifest").validate(json.loads(page.split("```json\n")[1].split("```")[0]))
