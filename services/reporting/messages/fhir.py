"""A specimen's result as a FHIR R4 (4.0.1) transaction Bundle.

Every entry is created only if there is none with its identifier, so that a Bundle that is sent twice changes nothing.
The models are of R4B (4.3.0): for the resources used here it differs from R4 in nothing that is written, which a test
holds against R4's own schema.
"""

import uuid
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from services.reporting.messages import codes
from services.reporting.messages.codes import Code
from services.reporting.messages.results import (
    METHOD,
    REFERENCE_TEXT,
    Figures,
    SmearResult,
    SpecimenResult,
    device_id,
    staining,
)
from services.reporting.references import CENTILE_5_NORMAL_PCT
from services.reporting.report import Share, SlideReport

_IDS: Final = uuid.UUID("0d7b1c52-5a55-5c0f-9c8b-7d7f3f0f4c1e")
_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem"
_REPLACES: Final = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
_REPORT: Final = "urn:morphbatch:report"
_OBSERVATION: Final = "urn:morphbatch:observation"
_SMEAR: Final = "urn:morphbatch:slide"
_DEVICE: Final = "urn:morphbatch:analysis"

_Json = dict[str, Any]


def bundle(result: SpecimenResult) -> bytes:
    """The Bundle as it is stored and sent: JSON in UTF-8, the same for the same result."""
    from fhir.resources.R4B.bundle import Bundle  # half a second of reading, which a worker's start does without

    document = {
        "resourceType": "Bundle",
        "meta": _meta(result),
        "identifier": {"system": _REPORT, "value": result.report_id},
        "type": "transaction",
        "timestamp": result.issued_at.isoformat(),
        "entry": [_entry(resource) for resource in _resources(result)],
    }
    checked: str = Bundle.model_validate(document).model_dump_json(indent=2, exclude_none=True)
    return (checked + "\n").encode()


def _resources(result: SpecimenResult) -> Iterator[_Json]:
    smears = {smear.number: _smear(result, smear) for smear in result.smears}
    devices = {device_id(smear.slide): _device(smear.slide) for smear in result.smears if smear.figures}
    observations = list(_observations(result, smears))
    panels = [observation for observation in observations if observation["identifier"][0]["value"].endswith("/panel")]
    yield _report(result, panels, list(smears.values()))
    yield _specimen(result)
    yield from smears.values()
    yield from devices.values()
    yield from observations


def _report(result: SpecimenResult, panels: list[_Json], smears: list[_Json]) -> _Json:
    replaced = result.report_id.rpartition("/")[0] + f"/{result.replaces}"
    return _present(
        {
            "resourceType": "DiagnosticReport",
            "meta": _meta(result),
            "extension": result.replaces
            and [{"url": _REPLACES, "valueReference": _by_number("DiagnosticReport", _REPORT, replaced)}],
            "identifier": [{"system": _REPORT, "value": result.report_id}],
            "basedOn": result.order_number
            and [_by_number("ServiceRequest", _numbers("order", result.lab), result.order_number)],
            "status": _status(result),
            "category": [{"coding": [{"system": f"{_SYSTEM}/v2-0074", "code": "LAB"}]}],
            "code": _concept(codes.PANEL),
            "subject": _subject(result),
            "effectiveDateTime": result.collected_at and result.collected_at.isoformat(),
            "issued": result.issued_at.isoformat(),
            "performer": [_by_number("Organization", "urn:morphbatch:lab", result.lab)],
            "specimen": [_to(_specimen(result)), *map(_to, smears)],
            "result": [_to(panel) for panel in panels],
        }
    )


def _specimen(result: SpecimenResult) -> _Json:
    sample = codes.SAMPLE[result.sample_type]
    systems = (codes.SNOMED_CT, f"{_SYSTEM}/v2-0487", codes.LOCAL)
    given = (sample.snomed_ct, sample.hl7_0487, sample.local)
    coding = [{"system": system, "code": code} for system, code in zip(systems, given, strict=True) if code]
    numbered = {"system": _numbers("accession", result.lab), "value": result.accession_number}
    return _present(
        {
            "resourceType": "Specimen",
            "meta": _meta(result),
            "identifier": [{"system": _numbers("specimen", result.lab), "value": result.specimen}],
            "accessionIdentifier": numbered if result.accession_number else None,
            "type": {"coding": coding, "text": sample.text},
            "subject": _subject(result),
            "collection": result.collected_at and {"collectedDateTime": result.collected_at.isoformat()},
        }
    )


def _smear(result: SpecimenResult, smear: SmearResult) -> _Json:
    return _present(
        {
            "resourceType": "Specimen",
            "meta": _meta(result),
            "identifier": [{"system": _SMEAR, "value": f"{result.lab}/{result.batch_id}/{smear.slide.slide_id}"}],
            "type": {"text": "Stained smear"},
            "subject": _subject(result),
            "parent": [_to(_specimen(result))],
            "processing": [{"description": staining(smear.slide)}],
        }
    )


def _device(slide: SlideReport) -> _Json:
    """What analysed the slide; it is the same for test data and others."""
    made_with = slide.analysis
    versions: dict[str, str | None] = {
        "release of the networks": slide.release_id,
        "software": made_with.software if made_with else None,
        "detector": made_with.detector if made_with else None,
        "form of the networks": made_with.form if made_with else None,
    }
    return _present(
        {
            "resourceType": "Device",
            "identifier": [{"system": _DEVICE, "value": device_id(slide)}],
            "deviceName": [{"name": "morphbatch", "type": "model-name"}],
            "version": [{"type": {"text": what}, "value": value} for what, value in versions.items() if value],
        }
    )


def _observations(result: SpecimenResult, smears: dict[str, _Json]) -> Iterator[_Json]:
    """Of each smear and then of the specimen (`P`): the panel and its members; a panel alone where nothing is known."""
    counted: list[tuple[_Json, _Json, list[_Json]]] = []
    for smear in result.smears:
        about: _Json = {
            "specimen": _to(smears[smear.number]),
            "device": smear.figures and _to(_device(smear.slide)),
            "method": {"text": f"{staining(smear.slide)}. {METHOD}"},
        }
        members = [] if smear.figures is None else list(_members(result, smear.number, smear.figures, about))
        panel = _panel(result, smear.number, about, members, smear.notes, "error")
        yield panel
        yield from members
        if members:
            counted.append((panel, about, members))
    about, members = {"specimen": _to(_specimen(result))}, []
    if result.pooled is not None:
        shared = [{name: said for name, said in of_smear.items() if name != "specimen"} for _, of_smear, _ in counted]
        about |= {name: said for name, said in shared[0].items() if all(other[name] == said for other in shared)}
        members = list(_members(result, "P", result.pooled, about))
        for number, member in enumerate(members):
            member["derivedFrom"] = [_to(of_smear[number]) for _, _, of_smear in counted]
    panel = _panel(result, "P", about, members, result.notes, "unknown")
    yield panel | ({"derivedFrom": [_to(of_smear) for of_smear, _, _ in counted]} if members else {})
    yield from members


def _panel(
    result: SpecimenResult, of: str, about: _Json, members: list[_Json], notes: tuple[str, ...], without: str
) -> _Json:
    return _observation(
        result,
        of,
        "panel",
        codes.PANEL,
        about,
        hasMember=[_to(member) for member in members],
        dataAbsentReason=None
        if members
        else {"coding": [{"system": f"{_SYSTEM}/data-absent-reason", "code": without}]},
        note=[{"text": note} for note in notes],
    )


def _members(result: SpecimenResult, of: str, figures: Figures, about: _Json) -> Iterator[_Json]:
    cells = {"value": figures.cells, "unit": "cells", "system": codes.UCUM, "code": "{cells}"}
    yield _observation(result, of, codes.CELLS.local, codes.CELLS, about, valueQuantity=cells)
    for share in figures.shares:
        code = codes.CLASS[share.class_code]
        extra: _Json = {}
        if code is codes.NORMAL:
            centile = _percent(CENTILE_5_NORMAL_PCT)
            extra["referenceRange"] = [{"low": centile, "text": REFERENCE_TEXT}]
            extra["interpretation"] = figures.interpretation and [
                {"coding": [{"system": f"{_SYSTEM}/v3-ObservationInterpretation", "code": figures.interpretation}]}
            ]
        yield _observation(result, of, code.local, code, about, **_value(share), **extra)
    for region, code in codes.REGION.items():
        share_of_region: Share = getattr(figures.regions, region)
        yield _observation(result, of, code.local, code, about, **_value(share_of_region))


def _value(share: Share) -> _Json:
    bounds = ((codes.LOW, share.low_pct), (codes.HIGH, share.high_pct))
    return {
        "valueQuantity": _percent(share.pct),
        "component": [{"code": _concept(code), "valueQuantity": _percent(bound)} for code, bound in bounds],
    }


def _observation(result: SpecimenResult, of: str, what: str, code: Code, about: _Json, **said: Any) -> _Json:
    return _present(
        {
            **_named(result, of, what),
            "meta": _meta(result),
            "status": _status(result),
            "category": [{"coding": [{"system": f"{_SYSTEM}/observation-category", "code": "laboratory"}]}],
            "code": _concept(code),
            "subject": _subject(result),
            "effectiveDateTime": result.collected_at and result.collected_at.isoformat(),
            "issued": result.issued_at.isoformat(),
            **about,
            **said,
        }
    )


def _status(result: SpecimenResult) -> str:
    return "entered-in-error" if result.withdrawn else "preliminary"


def _named(result: SpecimenResult, of: str, what: str) -> _Json:
    """What a reference to an observation needs of it: of which smear, or of all (`P`), and what is observed."""
    value = f"{result.report_id}/{of}/{what}"
    return {"resourceType": "Observation", "identifier": [{"system": _OBSERVATION, "value": value}]}


def _concept(code: Code) -> _Json:
    coding = [{"system": codes.LOINC, "code": code.loinc}] if code.loinc else []
    return {"coding": [*coding, {"system": codes.LOCAL, "code": code.local, "display": code.text}], "text": code.text}


def _percent(value: float) -> _Json:
    return {"value": value, "unit": "%", "system": codes.UCUM, "code": "%"}


def _numbers(what: str, lab: str) -> str:
    return f"urn:morphbatch:{what}:{lab}"


def _by_number(resource: str, system: str, value: str) -> _Json:
    return {"type": resource, "identifier": {"system": system, "value": value}}


def _subject(result: SpecimenResult) -> _Json:
    """Nobody is known here but by the specimen's pseudonym."""
    return _by_number("Patient", _numbers("specimen", result.lab), result.specimen)


def _meta(result: SpecimenResult) -> _Json | None:
    system, code, text = codes.HTEST
    return {"tag": [{"system": system, "code": code, "display": text}]} if result.is_test else None


def _full_url(resource: _Json) -> str:
    [identifier] = resource["identifier"]
    name = f"{resource['resourceType']} {identifier['system']} {identifier['value']}"
    return f"urn:uuid:{uuid.uuid5(_IDS, name)}"


def _to(resource: _Json) -> _Json:
    return {"reference": _full_url(resource)}


def _entry(resource: _Json) -> _Json:
    [identifier] = resource["identifier"]
    known = quote(f"{identifier['system']}|{identifier['value']}", safe="")
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": f"identifier={known}"}
    return {"fullUrl": _full_url(resource), "resource": resource, "request": request}


def _present(resource: _Json) -> _Json:
    """Without what is absent: FHIR has neither null nor empty lists."""
    return {name: value for name, value in resource.items() if value not in (None, [], "")}
