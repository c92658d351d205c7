"""The document of the interface: the file that is published is the code's, and the service keeps to it."""

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.api.v1.app import published
from services.batches.closing import close_batch
from tests.integration.api.serving import Api
from tests.integration.reporting.reporting_night import Night
from tests.places import CHECKOUT

FILE = CHECKOUT / "docs" / "openapi.json"
CHECKS: Any = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


def test_the_published_document_is_the_code_s(api: Api) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert text == published(), "run: python -m services.api.v1.app > docs/openapi.json"
    assert api.client().get("/openapi.json").json() == json.loads(text)


def test_every_example_is_what_its_schema_describes() -> None:
    document = json.loads(FILE.read_text(encoding="utf-8"))
    shown = {name: schema for name, schema in document["components"]["schemas"].items() if "example" in schema}
    assert {"NewBatch", "BatchState", "Problem", "Requeue", "Reason"} <= set(shown)
    for name, schema in shown.items():
        Draft202012Validator({"$ref": f"#/components/schemas/{name}", **document}).validate(schema["example"])


def test_whatever_is_asked_is_answered_as_the_document_says(full: Night, api: Api) -> None:
    close_batch(full.engine, full.store, full.batch_key)
    headers = {"Authorization": f"Bearer {api.token('berlin')}"}
    schema = schemathesis.openapi.from_dict(json.loads(FILE.read_text(encoding="utf-8")))
    seen: set[tuple[str, int]] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
            @settings(
                max_examples=3, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
            )
            def ask(case: Any, known: bool) -> None:
                if known:  # what there is, and not only what may be
                    there = {"batch_id": "night-1", "slide_id": "slide-0", "specimen": "S-01", "name": "slides.csv"}
                    case.path_parameters = {**case.path_parameters, **{k: there[k] for k in case.path_parameters}}
                case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
                response = case.call(base_url=api.url, headers=headers, allow_redirects=False)
                seen.add((case.operation.label, response.status_code))
                case.validate_response(response, checks=CHECKS)

            ask()
    assert {label for label, _ in seen} == {operation.ok().label for operation in schema.get_all_operations()}
    assert {200, 202, 307, 404, 409, 422} <= {status for _, status in seen}
