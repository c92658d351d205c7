"""The files of one specimen's result, in both languages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.keys import specimen_file
from services.reporting.messages import fhir, hl7
from services.reporting.messages.results import SpecimenResult

FHIR_TYPE: Final = "application/fhir+json"
HL7_TYPE: Final = "x-application/hl7-v2+er7"
"""As HL7 names its encoding with bars and carets over HTTP."""


@dataclass(frozen=True, slots=True)
class Message:
    """One file; `file` is its name among the results of the batch."""

    file: str
    content: bytes
    content_type: str


def messages_of(result: SpecimenResult) -> Iterator[Message]:
    """The Bundle and the ORU message, the same for the same result."""
    yield Message(specimen_file(result.specimen, ".fhir.json"), fhir.bundle(result), FHIR_TYPE)
    yield Message(specimen_file(result.specimen, ".hl7"), hl7.message(result), HL7_TYPE)
