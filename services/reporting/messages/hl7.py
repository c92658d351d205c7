"""A specimen's result as an HL7 v2.5.1 message ORU^R01^ORU_R01.

Results of a smear have its replicate's number as OBX-4, those of the specimen `P`: one that cannot be had has status X
and no value, one that is withdrawn W. Nothing is signed yet, so that every other status is R, entered and not verified.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from services.reporting.messages import codes
from services.reporting.messages.codes import Code
from services.reporting.messages.results import METHOD, Figures, SmearResult, SpecimenResult, device_id, staining
from services.reporting.references import CENTILE_5_NORMAL_PCT
from services.reporting.report import Share

if TYPE_CHECKING:
    from hl7apy.core import Segment

_SENDER: Final = "MORPHBATCH"
_ID_LENGTH: Final = 20
"""What MSH-10 may have in 2.5.1."""
_ESCAPES: Final = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PERCENT: Final = "%^percent^UCUM"


def message_id(result: SpecimenResult) -> str:
    """MSH-10, the same whenever the same result is sent: 20 characters of `A–Z 2–7`."""
    digest = hashlib.sha256(f"oru {result.report_id}".encode()).digest()
    return base64.b32encode(digest)[:_ID_LENGTH].decode()


def message(result: SpecimenResult) -> bytes:
    """The message as it is stored and sent: segments end in a carriage return, UTF-8; the same for the same result."""
    from hl7apy.consts import VALIDATION_LEVEL  # a quarter of a second, which a worker's start does without
    from hl7apy.core import Message

    oru = Message("ORU_R01", version="2.5.1", validation_level=VALIDATION_LEVEL.STRICT)
    _header(oru.msh, result)
    software = oru.add_segment("SFT")
    made_by = next((smear.slide for smear in result.smears if smear.figures), result.smears[0].slide)
    version, _, source = ((made_by.analysis.software if made_by.analysis else None) or "unknown").partition("+")
    _fill(software, {1: "morphbatch", 2: _text(version), 3: "morphbatch", 4: _text(source or version)})
    of_patient = oru.add_group("ORU_R01_PATIENT_RESULT")
    patient = of_patient.add_group("ORU_R01_PATIENT").add_segment("PID")
    # Nobody is known here but by the specimen's pseudonym: name type S, coded to ensure anonymity.
    _fill(patient, {1: "1", 3: f"{_text(result.specimen)}^^^{_text(result.lab)}^PI", 5: "^^^^^^S"})
    order = of_patient.add_group("ORU_R01_ORDER_OBSERVATION")
    placer = f"{_text(result.order_number)}^{_text(result.lab)}" if result.order_number else ""
    filler = f"{_text(f'{result.lab}/{result.batch_id}/{result.specimen}')}^{_SENDER}"
    _fill(order.add_segment("ORC"), {1: "RE", 2: placer, 3: filler})
    request = order.add_segment("OBR")
    _fill(
        request,
        {
            **{1: "1", 2: placer, 3: filler, 4: _code(codes.PANEL), 7: _time(result.collected_at)},
            **{22: _time(result.issued_at), 25: "C" if result.withdrawn else "R"},
        },
    )
    _note(order, result.notes)
    for number, (values, notes) in enumerate(_results(result), start=1):
        observation = order.add_group("ORU_R01_OBSERVATION")
        _fill(observation.add_segment("OBX"), {1: str(number), **values, 14: _time(result.collected_at)})
        _note(observation, notes)
    sample = codes.SAMPLE[result.sample_type]
    kind = f"{sample.hl7_0487}^{sample.text}^HL70487" if sample.hl7_0487 else ""
    local = f"{sample.local}^{sample.text}^{codes.LOCAL_HL7}"
    accession = f"{_text(result.accession_number)}&{_text(result.lab)}" if result.accession_number else ""
    specimen = order.add_group("ORU_R01_SPECIMEN").add_segment("SPM")
    _fill(
        specimen,
        {
            1: "1",
            2: f"{_text(result.specimen)}&{_text(result.lab)}^{accession}".rstrip("^"),
            4: f"{kind}^{local}" if kind else local,
            17: _time(result.collected_at),
        },
    )
    oru.validate()
    written: str = oru.to_er7()
    return (written.rstrip("\r") + "\r").encode()


def _header(msh: "Segment", result: SpecimenResult) -> None:
    _fill(
        msh,
        {
            3: _SENDER,
            4: _text(result.lab),
            7: _time(result.issued_at),
            9: "ORU^R01^ORU_R01",
            10: message_id(result),
            11: "T" if result.is_test else "P",
            12: "2.5.1",
            18: "UNICODE UTF-8",
        },
    )


_Observed = tuple[dict[int, str], tuple[str, ...]]


def _results(result: SpecimenResult) -> Iterator[_Observed]:
    """What stands in each OBX, by the number of its field, and the notes below it: the specimen first."""
    if result.pooled is None:
        yield _missing("P", result), ()
    else:
        same = {device_id(smear.slide) for smear in result.smears if smear.figures}
        yield from _of("P", result.pooled, METHOD, same.pop() if len(same) == 1 else None)
    for smear in result.smears:
        if smear.figures is None:
            yield _missing(smear.number, result), smear.notes
        else:
            yield from _of_smear(smear, smear.figures)


def _of_smear(smear: SmearResult, figures: Figures) -> Iterator[_Observed]:
    first, *others = _of(smear.number, figures, f"{staining(smear.slide)}. {METHOD}", device_id(smear.slide))
    yield first[0], smear.notes
    yield from others


def _missing(number: str, result: SpecimenResult) -> dict[int, str]:
    return {2: "NM", 3: _code(codes.NORMAL), 4: number, 6: _PERCENT, 11: "W" if result.withdrawn else "X"}


def _of(number: str, figures: Figures, method: str, device: str | None) -> Iterator[_Observed]:
    same = {2: "NM", 4: number, 11: "R", 17: f"^{_text(method)}", 18: f"{_text(device)}^{_SENDER}" if device else ""}
    yield {**same, 3: _code(codes.CELLS), 5: str(figures.cells), 6: "{cells}^cells^UCUM"}, ()
    for share in figures.shares:
        code = codes.CLASS[share.class_code]
        observed = {**same, 3: _code(code), **_share(share)}
        if code is codes.NORMAL:
            observed |= {7: f">={CENTILE_5_NORMAL_PCT:g}", 8: figures.interpretation or ""}
        yield observed, (_interval(share),)
    for region, code in codes.REGION.items():
        of_region: Share = getattr(figures.regions, region)
        yield {**same, 3: _code(code), **_share(of_region)}, (_interval(of_region),)


def _share(share: Share) -> dict[int, str]:
    return {5: f"{share.pct:.2f}", 6: _PERCENT}


def _interval(share: Share) -> str:
    return f"95 % interval of the count: {share.low_pct:.2f} to {share.high_pct:.2f} %"


def _code(code: Code) -> str:
    local = f"{code.local}^{code.text}^{codes.LOCAL_HL7}"
    return f"{code.loinc}^{code.text}^LN^{local}" if code.loinc else local


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y%m%d%H%M%S%z")


def _text(text: str) -> str:
    """As it may stand within a field: without line ends and with the signs escaped that separate fields."""
    return _UNPRINTABLE.sub(" ", text).translate(_ESCAPES)


def _note(group: "Segment", notes: tuple[str, ...]) -> None:
    for number, note in enumerate(notes, start=1):
        _fill(group.add_segment("NTE"), {1: str(number), 2: "L", 3: _text(note)})


def _fill(segment: "Segment", values: dict[int, str]) -> None:
    for number, value in sorted(values.items()):
        if value:
            setattr(segment, f"{segment.name.lower()}_{number}", value)
