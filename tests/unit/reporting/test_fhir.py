"""The FHIR Bundle of a specimen: right by the models, by HL7's own schema of R4, and in what it must not say."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fhir.resources.R4B.bundle import Bundle
from jsonschema import Draft6Validator

from services.reporting.messages.fhir import bundle
from services.reporting.messages.results import SpecimenResult
from tests.unit.reporting.a_result import full_result, result_of, slide, withdrawn_result

SCHEMA = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "morphbatch" / "schemas" / "fhir.schema.json"
)
NEVER = {"10606-2", "10609-6", "10623-7", "10593-2", "10625-2", "10594-0", "10629-4", "10607-0", "10610-4"} | {
    *("10602-1", "10603-9", "10604-7", "54231-6"),
}
BROKEN = {"state": "quarantined", "reason": "checksum_mismatch", "detail": "field f broken"}

RESULTS = {
    "two replicates": full_result,
    "test data, replaced": lambda: result_of(slide("a", 8, 200), lab_tests=True, revision=2, replaces=1, reason="why"),
    "differ": lambda: result_of(slide("a", 8, 200), slide("b", 60, 200, replicate=2)),
    "withdrawn": withdrawn_result,
    "no result": lambda: result_of(slide("a", 0, 0, **BROKEN)),
}


@cache
def schema() -> dict[str, Any]:
    if not SCHEMA.exists():
        pytest.skip("no schema: `make fhir-schema` fetches it (needs npm)")
    found: dict[str, Any] = json.loads(SCHEMA.read_bytes())
    assert found["id"] == "http://hl7.org/fhir/json-schema/4.0"
    return found


def resources(result: SpecimenResult, kind: str = "") -> list[dict[str, Any]]:
    found = [entry["resource"] for entry in json.loads(bundle(result))["entry"]]
    return [resource for resource in found if kind in ("", resource["resourceType"])]


def observation(result: SpecimenResult, of: str, what: str) -> dict[str, Any]:
    wanted = f"{result.report_id}/{of}/{what}"
    [found] = [o for o in resources(result, "Observation") if o["identifier"][0]["value"] == wanted]
    return found


def every(value: Any, name: str) -> Iterator[Any]:
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if key == name:
            yield part
        if isinstance(part, dict | list):
            yield from every(part, name)


@pytest.mark.parametrize("what", RESULTS)
def test_it_is_right_by_the_schema_of_r4(what: str) -> None:
    document = json.loads(bundle(RESULTS[what]()))
    Bundle.model_validate(document)
    definitions = schema()["definitions"]
    for entry in document["entry"]:
        resource = entry.pop("resource")
        of_its_kind = {"$ref": f"#/definitions/{resource['resourceType']}", "definitions": definitions}
        assert not [f"{e.json_path}: {e.message}" for e in Draft6Validator(of_its_kind).iter_errors(resource)]
    of_a_bundle = {"$ref": "#/definitions/Bundle", "definitions": definitions}
    assert not [f"{e.json_path}: {e.message}" for e in Draft6Validator(of_a_bundle).iter_errors(document)]


@pytest.mark.parametrize("what", RESULTS)
def test_every_reference_leads_to_an_entry_that_is_made_once(what: str) -> None:
    document = json.loads(bundle(RESULTS[what]()))
    urls = [entry["fullUrl"] for entry in document["entry"]]
    assert len(set(urls)) == len(urls)
    assert set(every(document, "reference")) <= set(urls)
    for entry in document["entry"]:
        [identifier] = entry["resource"]["identifier"]
        wanted = f"identifier={identifier['system']}|{identifier['value']}"
        assert unquote(entry["request"]["ifNoneExist"]) == wanted
        assert (entry["request"]["method"], entry["request"]["url"]) == ("POST", entry["resource"]["resourceType"])


def test_the_same_result_gives_the_same_bytes_and_another_revision_other_ids() -> None:
    assert bundle(full_result()) == bundle(full_result())
    again = result_of(*(smear.slide for smear in full_result().smears), revision=2, replaces=1, reason="why")
    mine, other = (
        {entry["request"]["ifNoneExist"] for entry in json.loads(bundle(result))["entry"]
         if entry["resource"]["resourceType"] in ("DiagnosticReport", "Observation")}
        for result in (full_result(), again)
    )  # fmt: skip
    assert not mine & other


@pytest.mark.parametrize("what", RESULTS)
def test_no_code_is_used_that_counts_something_else(what: str) -> None:
    document = json.loads(bundle(RESULTS[what]()))
    assert not NEVER & {code for code in every(document, "code") if isinstance(code, str)}
    loinc = {coding["code"] for coding in every(document, "coding") for coding in coding if "loinc" in coding["system"]}
    assert loinc <= {"9704-8", "10622-9"}
    assert not set(every(document, "conclusion"))


def test_nothing_is_called_final() -> None:
    for result in (full_result(), RESULTS["test data, replaced"]()):
        assert {r["status"] for r in resources(result) if "status" in r} == {"preliminary"}


def test_what_is_withdrawn_has_no_figures_and_is_no_result() -> None:
    found = resources(withdrawn_result())
    assert {r["status"] for r in found if "status" in r} == {"entered-in-error"}
    assert not list(every(found, "valueQuantity"))
    [report] = resources(withdrawn_result(), "DiagnosticReport")
    assert report["extension"][0]["valueReference"]["identifier"]["value"] == "berlin/night-1/S-01/1"


def test_normal_forms_have_interval_reference_and_interpretation() -> None:
    result = full_result()
    normal = observation(result, "P", "primary-normal")
    assert normal["code"]["coding"][0] == {"system": "http://loinc.org", "code": "10622-9"}
    percent = {"unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}
    assert normal["valueQuantity"] == {"value": 0.62, **percent}
    bounds = {part["code"]["coding"][0]["code"]: part["valueQuantity"]["value"] for part in normal["component"]}
    assert bounds == {"interval-low": 0.27, "interval-high": 1.45}
    assert normal["interpretation"][0]["coding"][0]["code"] == "L"
    [reference] = normal["referenceRange"]
    assert reference["low"] == {"value": 4, **percent}
    assert "not a limit" in reference["text"]
    pin = observation(result, "P", "primary-pin_head")
    assert not {"interpretation", "referenceRange"} & pin.keys()
    assert [coding["system"] for coding in pin["code"]["coding"]] == ["urn:morphbatch:code"]


def test_the_specimen_and_its_smears() -> None:
    specimen, first, second = resources(full_result(), "Specimen")
    assert specimen["accessionIdentifier"]["value"] == "A-1"
    assert [coding["code"] for coding in specimen["type"]["coding"]] == ["119347001", "SMN", "semen"]
    assert specimen["collection"]["collectedDateTime"] == "2026-11-23T08:40:00+01:00"
    assert {smear["processing"][0]["description"] for smear in (first, second)} == {"Stain: Hematoxylin-eosin, lot L&9"}
    [report] = resources(full_result(), "DiagnosticReport")
    assert report["basedOn"][0]["identifier"]["value"] == "R-26/1"
    assert report["subject"]["identifier"]["value"] == "S-01"


def test_what_is_pooled_is_derived_from_both_smears() -> None:
    result = full_result()
    links = {entry["fullUrl"]: entry["resource"] for entry in json.loads(bundle(result))["entry"]}
    pooled = observation(result, "P", "primary-normal")
    from_smears = [links[link["reference"]]["identifier"][0]["value"] for link in pooled["derivedFrom"]]
    assert from_smears == [f"{result.report_id}/{number}/primary-normal" for number in "12"]


def test_what_is_not_known_is_absent_and_says_why() -> None:
    differ = RESULTS["differ"]()
    panel = observation(differ, "P", "panel")
    assert panel["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert any("count both slides again" in note["text"] for note in panel["note"])
    assert not [o for o in resources(differ, "Observation") if "/P/primary" in o["identifier"][0]["value"]]
    broken = observation(RESULTS["no result"](), "1", "panel")
    assert broken["dataAbsentReason"]["coding"][0]["code"] == "error"
    assert broken["note"][0]["text"] == "No result of slide a: field f broken."


def test_test_data_is_marked_and_other_data_is_not() -> None:
    test = json.loads(bundle(RESULTS["test data, replaced"]()))
    tagged = [test, *(e["resource"] for e in test["entry"] if e["resource"]["resourceType"] != "Device")]
    assert all(resource["meta"]["tag"][0]["code"] == "HTEST" for resource in tagged)
    assert "HTEST" not in bundle(full_result()).decode()


def test_a_revision_refers_to_the_one_that_it_replaces() -> None:
    result = RESULTS["test data, replaced"]()
    [report] = resources(result, "DiagnosticReport")
    [extension] = report["extension"]
    assert extension["url"] == "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
    assert extension["valueReference"]["identifier"]["value"] == "berlin/night-1/S-01/1"
