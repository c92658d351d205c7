"""The report of a batch, `morphbatch.report/2`, from which every file, table and heading is drawn. No database here.

`docs/report.schema.json` is the same as JSON Schema. Percentages are 0 to 100 and rounded to 0.01; measures of heads
are rounded to 0.001 of their unit. Keys may be added under this version, with a default for reports that were issued
before; none is removed or changes its meaning.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from services.database.states import BatchState, SlideState
from services.imaging.types import Microns, NotCounted, Pixels, UmPerPx
from services.releases.schema import ReleaseKind
from services.sample_types import SampleType
from services.taxonomy import Region

SCHEMA: Final = "morphbatch.report/2"
WARNINGS: Final[Mapping[ReleaseKind, str]] = {
    ReleaseKind.UNTRAINED: "UNTRAINED NETWORKS: classes are meaningless; counts, boxes and measures are real",
    ReleaseKind.DEMONSTRATION: "demonstration, generated images, not for clinical use",
}
HAS_RESULT: Final = frozenset({SlideState.DONE, SlideState.INSUFFICIENT})

Pct = Annotated[float, Field(ge=0, le=100)]
Points = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]
ByReason = Annotated[
    dict[NotCounted, Annotated[int, Field(gt=0)]],
    Field(description="Cells that do not count by reason; a reason without a cell is left out."),
]
Moment = Annotated[
    AwareDatetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    Field(json_schema_extra={"format": "date-time"}),
]


class _Part(BaseModel):
    """Fields with an alias are written under it, and may be read under either name."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, serialize_by_alias=True)


class Share(_Part):
    """Some cells among all that count, with the Wilson score interval at 95 %."""

    cells: Count = Field(description="Cells counted.")
    cells_total: Annotated[int, Field(gt=0)] = Field(description="Cells that they are counted among.")
    pct: Pct = Field(description="cells / cells_total, %.")
    low_pct: Pct = Field(description="Lower bound of the interval, %.")
    high_pct: Pct = Field(description="Upper bound of the interval, %.")

    @property
    def one_decimal(self) -> str:
        """`pct` with one decimal, from the counts: 7 of 197 are 3.6, though `pct` is 3.55."""
        return f"{100 * self.cells / self.cells_total:.1f}"


class _OfClassCode(_Part):
    class_code: str = Field(description="The class, for programs.")


class _OfClass(_OfClassCode):
    class_name: str = Field(description="The class, for readers of English.")
    class_name_tr: str = Field(description="The class, for readers of Turkish.")
    region: Region = Field(description="Where on the cell the primary defect sits; `normal`: the normal form.")
    loinc: str | None = Field(description="LOINC code; null: none found that counts the same.")


# Pydantic orders fields from the last base to the first: what is counted stands before its count.
class ClassShare(Share, _OfClass):
    """The share of cells with one of the 18 classes as primary defect: a cell has one, so that they add up."""


class RegionShare(Share):
    """The share of cells whose primary defect is of one region. LOINC's codes of regions count all defects."""


class Regions(_Part):
    """Normal forms and the primary defects of each region; one class per cell, so the four add up to all cells."""

    normal: RegionShare
    head: RegionShare
    neck: RegionShare
    tail: RegionShare


class NormalForms(Share):
    """The share of normal forms, never without the 5th centile beside it."""

    centile_5_pct: Pct = Field(description="5th centile of the WHO manual's reference, %. Never a verdict.")
    text: str = Field(description="The same as a sentence.")


class Agreement(_Part):
    """Whether two replicates agree on the normal forms."""

    assessed: Literal[True]
    replicates_agree: bool = Field(description="They differ by no more than chance explains.")
    replicate_1_pct: Pct = Field(description="Normal forms of replicate 1, %.")
    replicate_2_pct: Pct = Field(description="Normal forms of replicate 2, %.")
    difference_points: Points = Field(description="Their difference, percentage points.")
    acceptable_points: Annotated[float, Field(ge=0)] | None = Field(
        description="The largest difference that chance explains, percentage points; null: judged by `p_value`."
    )
    p_value: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="How probable such a difference is by chance; null: judged by `acceptable_points`."
    )
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="How often two replicates of one specimen are told to differ, at most."
    )
    method: str = Field(description="How they were compared.")
    advice: str | None = Field(description="What to do; null: nothing.")


class NotAssessed(StrEnum):
    """Why two replicates are not compared."""

    ONE_REPLICATE = "one_replicate"
    SAME_NUMBER = "same_replicate_number"
    OTHER_STAIN = "other_stain"
    OTHER_RELEASE = "other_release"
    SAME_IMAGES = "same_images"
    NO_RESULT = "replicate_without_result"
    TOO_FEW_CELLS = "fewer_than_200_cells"


class AgreementNotAssessed(_Part):
    """The replicates cannot be compared."""

    assessed: Literal[False]
    reason: NotAssessed = Field(description="Stable code of why not.")
    detail: str = Field(description="The same as a sentence.")


class CorrectedShare(_Part):
    """A share as it likely is, with a 95 % interval that holds the counting and the networks' errors."""

    pct: Pct = Field(description="Likeliest share of all cells, %.")
    low_pct: Pct = Field(description="Lower bound of the interval, %.")
    high_pct: Pct = Field(description="Upper bound of the interval, %.")


class CorrectedClass(CorrectedShare, _OfClassCode):
    """The corrected share of one class."""


class CorrectedShares(_Part):
    """Shares corrected for the known errors of the networks, beside what was counted and never in its place.

    They hold where the cells of each class look as those did that the networks were calibrated on.
    """

    normal_forms: CorrectedShare
    distribution: tuple[CorrectedClass, ...] = Field(description="All 18 classes, in the index order of the networks.")


class Confidence(_Part):
    """How sure the networks are: the largest fused probability of each cell."""

    mean_pct: Pct = Field(description="Mean over the cells, %.")
    low_share_pct: Pct = Field(description="Cells below the limit `low_means_below`, %.")
    low_means_below: Annotated[float, Field(ge=0, le=1)] = Field(description="That limit, a probability.")


class MeasureSummary(_Part):
    """One measure over the cells on which it could be taken; null where it could be taken on none, never zero."""

    measure: str = Field(description="Name of the measure, as in the columns of cells.parquet.")
    unit: str = Field(description="Unit of median, percentiles and range.")
    cells_measured: Count = Field(description="Cells on which it could be taken.")
    median: float | None
    p05: float | None = Field(description="5th percentile.")
    p95: float | None = Field(description="95th percentile.")
    who_range: tuple[float, float] | None = Field(
        description="WHO range of a normal head; null: there is none for the slide's stain."
    )
    who_stain: str | None = Field(description="Stain after which the WHO range was measured; null: none in particular.")
    within_who_pct: Pct | None = Field(description="Measured cells within that range, %.")


class FieldSetAside(_Part):
    """A field that contributed no cell."""

    field: str = Field(description="Its key in the manifest.")
    reason: str = Field(description="Stable code of why.")
    detail: str | None = Field(description="The same as a sentence.")


class SlideFields(_Part):
    """The fields of a slide."""

    given: Count = Field(description="Fields in the manifest.")
    used: Count = Field(description="Fields whose cells are counted.")
    set_aside: tuple[FieldSetAside, ...]


class AnalysisReport(_Part):
    """The version of a slide's analysis that counts: who asked for it, and what it was made with."""

    version: Annotated[int, Field(ge=1)] = Field(description="From 1 within the slide. Earlier ones stay on record.")
    asked_at: Moment
    asked_by: str | None = Field(description="Who asked for it; null: it came with the batch.")
    why: str | None = Field(description="Why it was asked for.")
    software: str | None = Field(description="Version of morphbatch, and after + a digest of its source.")
    detector: str | None = Field(description="Digest of what found and measured the heads, and its libraries.")
    form: str | None = Field(description="Form in which the networks were served, such as openvino-fp32.")
    settings: dict[str, float] | None = Field(description="Settings that change results, as they were.")
    digest: str | None = Field(description="SHA-256 of the four above: equal means that it was made the same way.")


class LaterAnalysis(_Part):
    """A later version than the one that counts, which has no result (yet)."""

    version: Annotated[int, Field(ge=1)]
    state: SlideState
    reason: str | None = Field(description="Stable code of why it is quarantined, or was last tried again.")
    detail: str | None = Field(description="The same as a sentence.")


class SlideReport(_Part):
    """One slide. Where it has no result, its state and reason say why, and null stands where the result would be."""

    slide_id: str
    specimen: str = Field(description="Pseudonym of the specimen.")
    replicate: Literal[1, 2]
    stain: str
    um_per_px: Annotated[UmPerPx, Field(gt=0)] = Field(description="Scale of its fields, µm per pixel.")
    collected_at: Moment | None = Field(description="When the specimen was collected; null: not in the manifest.")
    day: date = Field(description="Day of that, else of receipt, by the lab's clock.")
    order_number: str | None = Field(default=None, description="Number of the order; null: not in the manifest.")
    accession_number: str | None = Field(
        default=None, description="Number under which the lab took the specimen in; null: not in the manifest."
    )
    sample_type: SampleType | None = Field(default=None, description="What it is; null: not in the manifest.")
    stain_lot: str | None = Field(default=None, description="Lot of the stain; null: not in the manifest.")
    state: SlideState
    reason: str | None = Field(description="Stable code of why it is not done.")
    detail: str | None = Field(description="The same as a sentence.")
    release_id: str | None = Field(description="Release that classified its cells; null: not analysed yet.")
    release_kind: ReleaseKind | None
    analysis: AnalysisReport | None = Field(description="What its figures come from; null: not analysed yet.")
    later: LaterAnalysis | None = Field(description="What is pending and does not count; null: nothing.")
    cells: Count = Field(description="Cells that count: those that the shares are of.")
    cells_not_counted: Count = Field(default=0, description="Cells that were classified and do not count.")
    not_counted_by_reason: ByReason = Field(default_factory=dict)
    on_border: Count = Field(description="Heads cut by the border of a field: counted, not classified.")
    objects_rejected: Count = Field(description="Other objects left out.")
    fields: SlideFields
    quality_flags: tuple[str, ...] = Field(
        description="Why its figures deserve a second look: `flag` or `flag:fields`."
    )
    normal_forms: NormalForms | None
    distribution: tuple[ClassShare, ...] | None = Field(
        description="All 18 classes, in the index order of the networks."
    )
    regions: Regions | None
    corrected: CorrectedShares | None = Field(
        description="Shares corrected for known errors; null: no result, or the release has no calibration."
    )
    confidence: Confidence | None
    morphometry: tuple[MeasureSummary, ...] | None
    attempts: Count = Field(description="Times that its analysis was started.")
    seconds: dict[str, float | dict[str, float]] = Field(
        description="Seconds by stage; stages overlap. `total`: all of it; `cpu`: processor time by stage."
    )
    files: tuple[str, ...] = Field(description="Its files, relative to this document.")

    @property
    def has_result(self) -> bool:
        """Its cells are counted, be they few."""
        return self.state in HAS_RESULT

    @property
    def seconds_total(self) -> float | None:
        """Seconds from the start of its analysis to its end; `None` before that."""
        total = self.seconds.get("total")
        return total if isinstance(total, float) else None


class SpecimenReport(_Part):
    """The slides with a result of one specimen, stain and release, joined: only those are counts of one thing.

    Replicates that disagree are not joined: then its figures are null.
    """

    specimen: str
    stain: str
    release_id: str
    slides: tuple[str, ...] = Field(description="slide_id of each.")
    collected_at: Moment | None = Field(description="When it was collected; null: not in the manifest.")
    day: date = Field(description="Day of that, else of receipt, by the lab's clock.")
    order_number: str | None = Field(default=None, description="Number of the order; null: not in the manifest.")
    accession_number: str | None = Field(
        default=None, description="Number under which the lab took it in; null: not in the manifest."
    )
    sample_type: SampleType | None = Field(default=None, description="What it is; null: not in the manifest.")
    cells: Count = Field(description="Cells that count in all of them.")
    cells_not_counted: Count = Field(
        default=0, description="Cells of its slides that were classified and do not count."
    )
    not_counted_by_reason: ByReason = Field(default_factory=dict)
    agreement: Agreement | AgreementNotAssessed
    quality_flags: tuple[str, ...] = Field(
        description="Why its figures deserve a second look: `flag`, `flag:slides`, `fewer_than_200_cells:replicates`."
    )
    normal_forms: NormalForms | None
    distribution: tuple[ClassShare, ...] | None = Field(
        description="All 18 classes, in the index order of the networks."
    )
    regions: Regions | None
    corrected: CorrectedShares | None = Field(
        description="Shares corrected for known errors; null: no result, or the release has no calibration."
    )


class ReleaseReport(_Part):
    """A release of the networks."""

    id: str
    kind: ReleaseKind
    fusion_weight: float | tuple[float, ...] | None = Field(
        description="Weight of the network `fusion_weight_of` in the fused logits: one number, or one per class."
    )
    fusion_weight_of: Literal["efficientnetv2_s"]
    crop_px: Annotated[Pixels, Field(gt=0)] = Field(description="Side of a cell's crop, pixels.")
    crop_um: Annotated[Microns, Field(gt=0)] = Field(description="Side of a cell's crop, µm.")
    minimum_crop_inside_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="A cell counts if so much of its crop lies in the field; null: each does."
    )
    git_commit: str | None = Field(description="Commit of the training code; null: untrained.")


class Reference(_Part):
    """What normal forms are printed beside: a place in a distribution, no limit."""

    normal_centile_5_pct: Pct = Field(description="5th centile, %.")
    normal_centile_5_interval_pct: tuple[Pct, Pct] = Field(description="Its 95 % interval, %.")
    source: str
    meaning: str


class Indices(_Part):
    """Indices of multiple defects, and why they are not given."""

    MAI: Literal["not assessable"] = Field(description="Multiple anomalies index.")
    TZI: Literal["not assessable"] = Field(description="Teratozoospermia index.")
    SDI: Literal["not assessable"] = Field(description="Sperm deformity index.")
    reason: str


class Summary(_Part):
    """The batch in figures; the sums are over all of its slides."""

    slides: Count
    slides_by_state: dict[SlideState, int]
    fields: Count
    fields_used: Count
    cells: Count
    cells_not_counted: Count = 0
    not_counted_by_reason: ByReason = Field(default_factory=dict)
    on_border: Count
    objects_rejected: Count
    seconds: float | None = Field(description="From the start of its first slide to the end of its last, so far.")


class Voided(_Part):
    """The batch was taken out of every count; its earlier revision has what was found."""

    at: Moment
    by: str | None
    why: str | None


class SharedFields(_Part):
    """Images of a slide that the lab had sent before in another slide: their bytes, or in this batch their picture."""

    slide_id: str
    fields: Annotated[int, Field(gt=0)]
    first_batch: str = Field(description="batch_id of the batch that had them first; it may be this one.")
    first_slide_id: str
    text: str = Field(description="The same as a sentence.")


class ManifestProblem(_Part):
    """A fault of the manifest, for which the batch was rejected."""

    path: str = Field(description="Where, like `slides[2].fields[0].sha256`.")
    reason: str = Field(description="Stable code.")
    message: str


class Report(_Part):
    """Everything that is known of a batch. A result is a count with its uncertainty, never a diagnosis."""

    warning: str | None = Field(
        default=None,
        exclude_if=lambda warning: warning is None,
        description="Why the classes are not for use; comes first, and is absent where there is no reason.",
    )
    schema_version: Annotated[Literal["morphbatch.report/2"], Field(alias="schema", description="Version.")]
    lab: str
    batch_id: str = Field(description="batch_id of the manifest.")
    state: BatchState
    received_at: Moment
    received_on: date = Field(description="Its day, UTC.")
    time_zone: str = Field(description="IANA name of the zone by whose clock the lab's days begin.")
    night: date = Field(description="Evening of the night of receipt, from noon to noon by the lab's clock.")
    revision: Annotated[int, Field(ge=1)] | None = Field(
        description="Number of this issue of the report; null: read from the database while the batch is open."
    )
    issued_at: Moment | None
    replaces: int | None = Field(description="The revision before, below revisions/; null: there is none.")
    reason: str | None = Field(description="Why there is another revision; null: it is the first.")
    voided: Voided | None = Field(description="Nothing of the batch counts, and why; null: it counts.")
    shared_fields: tuple[SharedFields, ...] = Field(description="Images that may be counted twice.")
    release: ReleaseReport | None = Field(description="The latest release in use; null: no slide is analysed yet.")
    other_releases: tuple[ReleaseReport, ...] = Field(description="Earlier ones that some of its slides stand under.")
    reference: Reference
    indices: Indices
    summary: Summary
    specimens: tuple[SpecimenReport, ...]
    slides: tuple[SlideReport, ...] = Field(description="In the order of the manifest.")
    problems: tuple[ManifestProblem, ...]
    notes: tuple[str, ...] = Field(description="What could not be drawn, and why.")
    files: tuple[str, ...] = Field(
        description="Its tables and messages, relative to this document; empty until it is closed."
    )

    @property
    def releases(self) -> tuple[ReleaseReport, ...]:
        """All releases in use, the latest first."""
        return (() if self.release is None else (self.release,)) + self.other_releases

    def release_of(self, slide: SlideReport) -> ReleaseReport:
        """The release under which the slide's result stands.

        Raises:
            LookupError: it was not analysed.
        """
        for release in self.releases:
            if release.id == slide.release_id:
                return release
        raise LookupError(f"slide {slide.slide_id} of {self.lab}/{self.batch_id} was not analysed")

    def with_files(
        self, files: Iterable[str], files_of_slides: Mapping[str, tuple[str, ...]], notes: Iterable[str]
    ) -> Self:
        """The same report once its files are written; `files_of_slides` by slide_id."""
        slides = tuple(
            slide.model_copy(update={"files": files_of_slides.get(slide.slide_id, ())}) for slide in self.slides
        )
        return self.model_copy(update={"slides": slides, "files": tuple(files), "notes": tuple(notes)})

    def as_issued(self, revision: int, issued_at: datetime, replaces: int | None, reason: str | None) -> Self:
        """The same report under the number and date with which it goes out."""
        issue = {"revision": revision, "issued_at": issued_at, "replaces": replaces, "reason": reason}
        return self.model_copy(update=issue)

    def as_json(self) -> bytes:
        """The document as it is stored."""
        return (self.model_dump_json(indent=2) + "\n").encode()
