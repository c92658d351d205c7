"""The codes under which results go out: a public one where it counts the same, else one of ours.

LOINC has codes of single defects (10606-2 Amorphous, 10609-6 Duplicate head, …) and of regions (10602-1, 10603-9,
10604-7). Each counts every sperm that has the defect. The networks name one class a cell, so that none of these may be
used: a sum of 100 % would be forced on shares that the WHO manual does not let add up. 54231-6, the whole semen panel,
holds more than is measured here.
"""

from dataclasses import dataclass
from typing import Final

from services import taxonomy
from services.sample_types import SampleType
from services.taxonomy import Region

LOINC: Final = "http://loinc.org"
SNOMED_CT: Final = "http://snomed.info/sct"
UCUM: Final = "http://unitsofmeasure.org"
LOCAL: Final = "urn:morphbatch:code"
LOCAL_HL7: Final = "99MORPH"
"""The same in HL7 v2, where a local table is called 99 and a name (table 0396)."""
HTEST: Final = ("http://terminology.hl7.org/CodeSystem/v3-ActReason", "HTEST", "test health data")


@dataclass(frozen=True, slots=True)
class Code:
    """What is counted: our code, its English name, and LOINC's code if there is one that counts the same."""

    local: str
    text: str
    loinc: str | None = None


PANEL: Final = Code("sperm-morphology", "Sperm morphology", "9704-8")
CELLS: Final = Code("cells-counted", "Spermatozoa counted")
LOW: Final = Code("interval-low", "Lower bound of the 95 % interval of the count")
HIGH: Final = Code("interval-high", "Upper bound of the 95 % interval of the count")
NORMAL: Final = Code("primary-normal", "Normal forms", taxonomy.NORMAL.loinc)
CLASS: Final = {
    c.code: NORMAL if c is taxonomy.NORMAL else Code(f"primary-{c.code}", f"{c.english}, primary defect", c.loinc)
    for c in taxonomy.CLASSES
}
REGION: Final = {
    region: Code(f"primary-region-{region}", f"{region.capitalize()} defects, primary")
    for region in (Region.HEAD, Region.NECK, Region.TAIL)
}

_SEMEN_SNOMED: Final = "119347001"
_SEMEN_HL7: Final = "SMN"


@dataclass(frozen=True, slots=True)
class SampleCode:
    """A type of sample: our code and its name, and those of SNOMED CT and HL7's table 0487 where there is one."""

    local: str
    text: str
    snomed_ct: str | None = None
    hl7_0487: str | None = None


SAMPLE: Final = {
    kind: SampleCode(kind, kind.replace("_", " ").capitalize()) for kind in SampleType if kind is not SampleType.SEMEN
} | {SampleType.SEMEN: SampleCode(SampleType.SEMEN, "Seminal fluid", _SEMEN_SNOMED, _SEMEN_HL7)}
