"""What goes in and comes out, as the document of the interface describes it."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.api.v1.problems import Fault
from services.intake.manifest import MAX_FIELDS, Id, ManifestField, ManifestSlide
from services.lims.batches import BatchNow

_EXAMPLE_FIELD: Final[dict[str, Any]] = {
    "key": "slide-01/field-001.jpg",
    "size": 183204,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_EXAMPLE_SLIDE: Final[dict[str, Any]] = {
    "slide_id": "slide-01",
    "specimen": "S-7F3A",
    "replicate": 1,
    "stain": "diff-quik",
    "um_per_px": 0.1,
    "fields": [_EXAMPLE_FIELD],
}
_EXAMPLE_BATCH: Final[dict[str, Any]] = {
    "batch_id": "night-2026-11-23",
    "state": "complete_with_errors",
    "received_at": "2026-11-23T22:41:07Z",
    "closed_at": "2026-11-24T03:12:40Z",
    "voided": {"at": "2026-11-24T07:05:00Z", "why": "sent twice"},
}
Why = Annotated[
    str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]+$", description="Why, for the audit. No names.")
]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewField(ManifestField):
    """An image that will be uploaded: a field of the manifest, and its size."""

    size: int = Field(ge=1, description="Size of the file in bytes.")


class NewSlide(ManifestSlide):
    """A slide of the manifest."""

    fields: Annotated[list[NewField], Field(min_length=1, max_length=MAX_FIELDS)]  # type: ignore[assignment]


class NewBatch(BaseModel):
    """A batch to be sent: its manifest (`docs/manifest.md`), with the size of each field."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"batch_id": "night-2026-11-23", "slides": [_EXAMPLE_SLIDE]}}
    )

    schema_version: Literal["morphbatch.manifest/1"] = Field(
        "morphbatch.manifest/1", alias="schema", description="May be left out."
    )
    lab: Id | None = Field(None, description="May be left out: it is the lab of the token.")
    batch_id: Id = Field(description="The batch's id, unique in the lab.")
    slides: Annotated[list[NewSlide], Field(min_length=1, max_length=MAX_FIELDS)]


class Upload(_Answer):
    """How one field is uploaded: the method, the URL and the headers, all as they are."""

    key: str = Field(description="The field, as in the manifest.")
    method: Literal["PUT"] = "PUT"
    url: str = Field(description="For this file only, until `expires_at`. Whoever has it needs no token.")
    headers: dict[str, str] = Field(
        description="Are part of the signature, as is Content-Length: send each with this value, and the body whole."
    )


class AnnouncedBatch(_Answer):
    """A batch that may be uploaded now."""

    batch_id: str
    committed: bool = Field(description="Whether it was committed before; then only lost fields are sent again.")
    expires_at: datetime = Field(description="When the URLs end. Announce the same batch again for others.")
    uploads: list[Upload]


class Voided(_Answer):
    """Nothing of the batch counts any more."""

    at: datetime
    why: str | None


class Batch(_Answer):
    """A batch in a list."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE_BATCH})

    batch_id: str
    state: str = Field(
        description="`awaiting_fields` (announced), `submitted` (committed), `analysing`, `complete`,"
        " `complete_with_errors` (slides are quarantined), `rejected` (its manifest is wrong), `cancelled`"
    )
    received_at: datetime | None = Field(description="When the service took it in; null: not yet.")
    closed_at: datetime | None
    voided: Voided | None


class SlideInTrouble(_Answer):
    """A slide that is quarantined, or waits after a failure."""

    slide_id: str
    state: str
    reason: str = Field(description="Stable code.")
    detail: str


class BatchState(Batch):
    """A batch at this moment."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_EXAMPLE_BATCH,
                "fields": 24,
                "slides": {"done": 1, "quarantined": 1},
                "slides_in_trouble": [],
                "problems": [],
            }
        }
    )

    fields: int
    slides: dict[str, int] = Field(description="How many slides are in which state.")
    slides_in_trouble: list[SlideInTrouble] = Field(description="The first 100.")
    problems: list[Fault] = Field(description="Why it was rejected.")


class BatchPage(_Answer):
    """Batches, those received last first."""

    batches: list[Batch]
    next: str | None = Field(description="The `cursor` of the next page; null: this is the last.")


class Event(_Answer):
    """Something that happened to a batch."""

    id: int = Field(description="Give the last one as `after`, or as `Last-Event-ID`, to go on from there.")
    at: datetime
    kind: str
    detail: dict[str, Any]


class Events(_Answer):
    """What happened since."""

    events: list[Event]


class Reason(BaseModel):
    """Why something is done."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"why": "sent twice"}})

    why: Why


class Requeue(BaseModel):
    """Which slides are analysed again."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"slides": ["slide-02"], "why": "field uploaded again"}}
    )

    slides: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]], Field(max_length=MAX_FIELDS)
    ] = Field(default=[], description="Slides that have ended; none named: all that are quarantined.")
    why: Why | None = None


class Requeued(_Answer):
    """The slides that are analysed again."""

    slides: list[str]


class Cancelled(_Answer):
    """How many slides are not started any more."""

    slides: int


class VoidedNow(_Answer):
    """Whether the batch counts."""

    batch_id: str
    voided: bool


class File(_Answer):
    """A file of the results."""

    name: str
    href: str = Field(description="Answers with a redirect to the file.")


class Files(_Answer):
    """The files of a batch's results."""

    files: list[File]


def batch_state(now: BatchNow) -> BatchState:
    """The state of a batch as it is answered."""
    return BatchState(
        batch_id=now.batch_id,
        state=now.state,
        received_at=now.received_at,
        closed_at=now.closed_at,
        voided=None if now.voided_at is None else Voided(at=now.voided_at, why=now.void_why),
        fields=now.fields,
        slides=now.slides,
        slides_in_trouble=[
            SlideInTrouble(slide_id=s.slide_id, state=s.state, reason=s.reason, detail=s.detail) for s in now.troubled
        ],
        problems=[Fault(**problem) for problem in now.problems],
    )
