"""The manifest of a batch, `morphbatch.manifest/1`, as pydantic models. `docs/manifest.md` explains it to a LIMS.

The models describe one manifest; `parse_manifest` in `validation.py` reads one and reports everything wrong with it.
"""

import hashlib
import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from services.intake.privacy import personal_data_in
from services.keys import MANIFEST_NAME, RESERVED_FOLDERS
from services.sample_types import SampleType

SCHEMA: Final = "morphbatch.manifest/1"
MAX_FIELDS: Final = 10_000
MAX_CELLS_PER_FIELD: Final = 5_000
MAX_CELLS: Final = 500_000
MIN_UM_PER_PX: Final = 0.01
MAX_UM_PER_PX: Final = 2.0
ID_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_NUMBER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9./_-]{0,62}$"
_MAX_STAIN: Final = 63
_IN_A_STAIN: Final = frozenset(" ._+&-–,/%()®™°'’")
_MAX_KEY_BYTES: Final = 512
_MAX_NAME_BYTES: Final = 255  # of a folder or file: a store that keeps files can hold no longer names
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)")
_EARLIEST_COLLECTION: Final = datetime(1980, 1, 1, tzinfo=UTC)
_CLOCKS_DIFFER: Final = timedelta(minutes=15)
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # a name may look like another
_WINDOWS_DRIVE: Final = re.compile(r"^[A-Za-z]:")


def _without_personal_data(text: str) -> str:
    kind = personal_data_in(text)
    if kind is not None:
        raise PydanticCustomError("personal_data", "looks like {kind}; use a pseudonym", {"kind": kind})
    return text


def _a_time(text: object) -> object:
    if not (isinstance(text, str) and _TIME.fullmatch(text)):
        example = {"example": "2026-11-23T08:40:00+01:00"}
        raise PydanticCustomError("manifest_bad_value", "must be a time with its offset, like {example}", example)
    return text


def _plausible_time(time: datetime) -> datetime:
    if not _EARLIEST_COLLECTION <= time <= datetime.now(UTC) + _CLOCKS_DIFFER:
        raise PydanticCustomError("manifest_bad_value", "must be a time after 1980 that has passed")
    return time


def _a_stain(text: str) -> str:
    for place, character in enumerate(text, start=1):
        is_letter = unicodedata.category(character)[0] in "LNM"
        if not (is_letter or (place > 1 and character in _IN_A_STAIN)):
            raise PydanticCustomError(
                "manifest_bad_value",
                "has {character} as character {place}: use letters and digits, after the first one {others} too",
                {"character": _named(character), "place": place, "others": "".join(sorted(_IN_A_STAIN)).strip()},
            )
    kind = personal_data_in(text, names_a_stain=True)
    if kind is not None:
        raise PydanticCustomError("personal_data", "looks like {kind}; give the name of the stain", {"kind": kind})
    return text


def _cannot_be_in_a_key(character: str) -> bool:
    """Control characters, lone surrogates (Postgres stores neither), line breaks, and what turns a line's direction.

    Other invisible characters are how systems write names: no-break spaces, soft hyphens, direction marks.
    """
    kind = unicodedata.category(character)
    is_noncharacter = ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
    return kind in {"Cc", "Cs", "Zl", "Zp"} or is_noncharacter or character in _TURNING


def _named(character: str) -> str:
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'a control or unassigned character').lower()})"


def _inside_the_batch(key: str) -> str:
    segments = key.split("/")
    if (
        key.startswith("/")
        or "\\" in key
        or "://" in key
        or ".." in segments
        or _WINDOWS_DRIVE.match(key)
        or segments[0] in RESERVED_FOLDERS
    ):
        raise PydanticCustomError(
            "field_outside_batch",
            "leads out of the batch's prefix; give a key relative to it, such as slide-01/field-001.jpg",
        )
    for place, character in enumerate(key, start=1):
        if _cannot_be_in_a_key(character):
            raise PydanticCustomError(
                "manifest_bad_value",
                "has {character} as character {place}, which is not allowed in an object key: rename the file",
                {"character": _named(character), "place": place},
            )
    if any(s in ("", ".") for s in segments) or len(key.encode()) > _MAX_KEY_BYTES:
        raise PydanticCustomError(
            "manifest_bad_value",
            "is not a valid object key: folder names cannot be empty or '.', and {most} bytes are allowed",
            {"most": _MAX_KEY_BYTES},
        )
    if any(len(s.encode()) > _MAX_NAME_BYTES for s in segments):
        raise PydanticCustomError(
            "manifest_bad_value",
            "has a folder or file name of more than {most} bytes, which not every object store can hold: rename it",
            {"most": _MAX_NAME_BYTES},
        )
    if key == MANIFEST_NAME:
        raise PydanticCustomError("manifest_bad_value", "is the manifest itself")
    return key


def _plausible_scale(um_per_px: float) -> float:
    if not MIN_UM_PER_PX <= um_per_px <= MAX_UM_PER_PX:  # also false for NaN
        raise PydanticCustomError(
            "um_per_px_absurd",
            "must be micrometres per pixel between {least} and {most}",
            {"least": MIN_UM_PER_PX, "most": MAX_UM_PER_PX},
        )
    return um_per_px


Id = Annotated[str, Field(pattern=ID_PATTERN), AfterValidator(_without_personal_data)]
Pseudonym = Annotated[str, Field(pattern=_NAME_PATTERN), AfterValidator(_without_personal_data)]
Number = Annotated[str, Field(pattern=_NUMBER_PATTERN), AfterValidator(_without_personal_data)]
Stain = Annotated[str, Field(min_length=1, max_length=_MAX_STAIN), AfterValidator(_a_stain)]
FieldKey = Annotated[str, AfterValidator(_inside_the_batch), AfterValidator(_without_personal_data)]
CollectionTime = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_a_time), AfterValidator(_plausible_time)
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$"), AfterValidator(str.lower)]
Pixel = Annotated[int, Field(ge=0, le=100_000)]
MicronsPerPixel = Annotated[
    float,
    AfterValidator(_plausible_scale),
    Field(json_schema_extra={"minimum": MIN_UM_PER_PX, "maximum": MAX_UM_PER_PX}),
]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class GivenCell(_Strict):
    """A sperm head that the LIMS found already."""

    box: Annotated[tuple[Pixel, Pixel, Pixel, Pixel], Field(strict=False)] = Field(
        description="x0, y0, x1, y1 in pixels of the image, origin top left; x1 and y1 are exclusive."
    )

    @model_validator(mode="after")
    def _has_an_area(self) -> Self:
        x0, y0, x1, y1 = self.box
        if x0 >= x1 or y0 >= y1:
            raise PydanticCustomError("manifest_bad_value", "the box is empty: x0 < x1 and y0 < y1 are required")
        return self


def _each_once(cells: list[GivenCell]) -> list[GivenCell]:
    first: dict[tuple[int, ...], int] = {}
    for place, cell in enumerate(cells):
        if first.setdefault(cell.box, place) != place:
            raise PydanticCustomError(
                "manifest_bad_value",
                "cells[{place}] has the same box as cells[{first}]: give each cell once",
                {"place": place, "first": first[cell.box]},
            )
    return cells


class ManifestField(_Strict):
    """One image."""

    key: FieldKey = Field(description="Object key relative to incoming/<lab>/<batch_id>/.", max_length=_MAX_KEY_BYTES)
    sha256: Sha256 = Field(description="SHA-256 of the object, hexadecimal.")
    kind: Literal["field", "crop"] = Field(
        "field", description="`field`: a whole microscope field. `crop`: one cell; no cells are searched for."
    )
    cells: (
        Annotated[list[GivenCell], Field(max_length=MAX_CELLS_PER_FIELD, fail_fast=True), AfterValidator(_each_once)]
        | None
    ) = Field(
        None, description="Heads found before; used as given, no others are searched for. Not allowed with `crop`."
    )

    @model_validator(mode="after")
    def _crop_is_one_cell(self) -> Self:
        if self.kind == "crop" and self.cells is not None:
            raise PydanticCustomError("manifest_bad_value", "a crop is one cell: leave `cells` out")
        return self


class ManifestSlide(_Strict):
    """One stained smear of a specimen."""

    slide_id: Pseudonym = Field(description="Unique in the batch.")
    specimen: Pseudonym = Field(description="Pseudonym of the specimen; two replicates share it.")
    replicate: Literal[1, 2] = Field(description="Which of the specimen's two replicates this is.")
    stain: Stain = Field(description="Name of the staining method, such as `diff-quik`; `unknown` is allowed.")
    um_per_px: MicronsPerPixel = Field(description="Micrometres per pixel of its images.")
    collected_at: CollectionTime | None = Field(
        None, description="When the specimen was collected, with the offset of the lab's clock (RFC 3339)."
    )
    order_number: Number | None = Field(None, description="Number of the order that the result answers; no person's.")
    accession_number: Number | None = Field(None, description="Number under which the lab took the specimen in.")
    sample_type: SampleType | None = Field(None, strict=False, description="What the specimen is; left out: not said.")
    stain_lot: Number | None = Field(None, description="Lot of the stain.")
    fields: Annotated[list[ManifestField], Field(min_length=1, max_length=MAX_FIELDS)] = Field(
        description=f"Its images; at most {MAX_FIELDS} in the whole batch."
    )


class Manifest(_Strict):
    """What a LIMS says of a night's batch. It is uploaded last, as incoming/<lab>/<batch_id>/manifest.json."""

    schema_version: Literal["morphbatch.manifest/1"] = Field(alias="schema", description="Version of the format.")
    lab: Id = Field(description="The lab's code, as in the manifest's own key.")
    batch_id: Id = Field(description="The batch's id, unique in the lab, as in the manifest's own key.")
    # Left out where it is false, so that manifests of before keep their fingerprint.
    urgent: bool = Field(
        False,
        exclude_if=lambda urgent: not urgent,
        description="Whether it passes other batches that wait, of all labs and at any time of day.",
    )
    slides: Annotated[list[ManifestSlide], Field(min_length=1, max_length=MAX_FIELDS)]

    @property
    def field_count(self) -> int:
        """Images in the whole batch."""
        return sum(len(slide.fields) for slide in self.slides)

    def as_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values, absent options left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def fingerprint(self) -> str:
        """SHA-256 of the content: white space, key order and spelled-out defaults do not change it."""
        canonical = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
