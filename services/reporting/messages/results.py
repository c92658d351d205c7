"""What a LIMS is told of each specimen of a report, in whatever language: figures, where there are none, and why."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from services.releases.schema import ReleaseKind
from services.reporting.references import CENTILE_5_NORMAL_PCT, FEWEST_CELLS
from services.reporting.report import ClassShare, Regions, Report, SlideReport, SpecimenReport
from services.reporting.statistics import wilson
from services.sample_types import SampleType
from services.stains import stain_name
from services.taxonomy import NORMAL

METHOD_NOTE: Final = (
    "Each spermatozoon has one class, its primary defect, so that the shares add up to 100 %. The 95 % intervals are"
    " those of the count; the errors of the networks are not in them. This is a count, not a diagnosis."
)
METHOD: Final = "Spermatozoa in images of the smear found and classified by software, one class each, among 18"
REFERENCE_TEXT: Final = "WHO 6th edition, 5th centile; not a limit between fertile and infertile"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted on one smear, or on the smears of a specimen together."""

    cells: int
    distribution: tuple[ClassShare, ...]
    regions: Regions

    @property
    def shares(self) -> tuple[ClassShare, ...]:
        """All 18 classes, normal forms first."""
        return tuple(sorted(self.distribution, key=lambda share: share.class_code != NORMAL.code))

    @property
    def interpretation(self) -> Literal["L", "N"] | None:
        """Whether normal forms are below the 5th centile or not; `None` where their interval spans it."""
        normal = wilson(self.regions.normal.cells, self.regions.normal.cells_total)
        if normal.high_pct < CENTILE_5_NORMAL_PCT:
            return "L"
        return "N" if normal.low_pct >= CENTILE_5_NORMAL_PCT else None


@dataclass(frozen=True, slots=True)
class SmearResult:
    """One slide of the specimen. `number` tells it from the others: its replicate, and `2.2` of another replicate 2."""

    number: str
    slide: SlideReport
    figures: Figures | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpecimenResult:
    """One specimen of a report. `pooled` is absent where its slides may not be counted as one; `notes` say why.

    No result is signed yet, so that each is preliminary, also one that replaces another. One that is `withdrawn` has no
    figures: those of the revision before do not hold any more.
    """

    lab: str
    batch_id: str
    specimen: str
    revision: int
    issued_at: datetime
    replaces: int | None
    is_test: bool
    order_number: str | None
    accession_number: str | None
    sample_type: SampleType
    collected_at: datetime | None
    smears: tuple[SmearResult, ...]
    pooled: Figures | None
    notes: tuple[str, ...]
    withdrawn: bool = False

    @property
    def report_id(self) -> str:
        """The same for this specimen and revision whenever it is sent, and for nothing else."""
        return f"{self.lab}/{self.batch_id}/{self.specimen}/{self.revision}"


def specimen_results(report: Report, *, lab_tests: bool) -> Iterator[SpecimenResult]:
    """The specimens of an issued report whose results may go out, by their pseudonym.

    Only those of which every slide was classified by a trained release. Of a lab that tests all of them, each marked.
    """
    by_specimen: dict[str, list[SlideReport]] = defaultdict(list)
    for slide in report.slides:
        by_specimen[slide.specimen].append(slide)
    for name, slides in sorted(by_specimen.items()):
        kinds = {slide.release_kind for slide in slides if slide.release_kind is not None}
        if kinds and (lab_tests or kinds == {ReleaseKind.TRAINED}):
            yield _result(report, name, slides, lab_tests)


def withdrawn_results(before: Report, report: Report, *, lab_tests: bool) -> Iterator[SpecimenResult]:
    """The specimens whose results went out with the revision `before`, and do not with this one.

    The batch was voided, or a slide of theirs was classified by a release that is not for use.
    """
    still = {result.specimen for result in specimen_results(report, lab_tests=lab_tests)}
    for result in specimen_results(before, lab_tests=lab_tests):
        if result.specimen not in still:
            again = _result(report, result.specimen, [smear.slide for smear in result.smears], lab_tests)
            said = f"Withdrawn: the result of revision {report.replaces} does not hold any more."
            smears = tuple(SmearResult(smear.number, smear.slide, None, ()) for smear in again.smears)
            yield replace(again, smears=smears, pooled=None, notes=(said, *again.notes[:-1]), withdrawn=True)


def _result(report: Report, name: str, slides: Sequence[SlideReport], is_test: bool) -> SpecimenResult:
    if report.revision is None or report.issued_at is None:
        raise ValueError(f"the report of {report.lab}/{report.batch_id} is not issued")
    groups = [specimen for specimen in report.specimens if specimen.specimen == name]
    smears = tuple(_smears(slides))
    pooled = _pooled(groups)
    first = min(slides, key=lambda slide: (slide.collected_at is None, slide.collected_at, slide.slide_id))
    return SpecimenResult(
        lab=report.lab,
        batch_id=report.batch_id,
        specimen=name,
        revision=report.revision,
        issued_at=report.issued_at,
        replaces=report.replaces,
        is_test=is_test,
        order_number=next((slide.order_number for slide in slides if slide.order_number), None),
        accession_number=next((slide.accession_number for slide in slides if slide.accession_number), None),
        sample_type=next((slide.sample_type for slide in slides if slide.sample_type), SampleType.SEMEN),
        collected_at=first.collected_at,
        smears=smears,
        pooled=pooled,
        notes=tuple(_notes(report, groups, smears, pooled, is_test)),
    )


def staining(slide: SlideReport) -> str:
    """How the smear was stained, for readers."""
    return f"Stain: {stain_name(slide.stain)}" + (f", lot {slide.stain_lot}" if slide.stain_lot else "")


def device_id(slide: SlideReport) -> str:
    """What the slide was analysed with: release, and the digest of software, detector, form and settings."""
    digest = slide.analysis.digest if slide.analysis else None
    return f"{slide.release_id}/{digest[:16] if digest else 'unknown'}"


def _figures(of: SlideReport | SpecimenReport) -> Figures | None:
    if of.distribution is None or of.regions is None:
        return None
    return Figures(of.cells, of.distribution, of.regions)


def _smears(slides: Sequence[SlideReport]) -> Iterator[SmearResult]:
    seen: Counter[int] = Counter()
    for slide in sorted(slides, key=lambda slide: slide.replicate):
        seen[slide.replicate] += 1
        again = seen[slide.replicate]
        number = f"{slide.replicate}.{again}" if again > 1 else f"{slide.replicate}"
        figures = _figures(slide) if slide.has_result else None
        yield SmearResult(number, slide, figures, tuple(_notes_of(slide, figures)))


def _notes_of(slide: SlideReport, figures: Figures | None) -> Iterator[str]:
    if figures is None:
        why = (slide.detail or slide.reason or "no spermatozoa were found").partition("\n")[0]
        yield f"No result of slide {slide.slide_id}: {why}."
        return
    if figures.cells < FEWEST_CELLS:
        yield f"{figures.cells} spermatozoa were counted; {FEWEST_CELLS} are asked for."
    flags = [flag for flag in slide.quality_flags if flag != f"fewer_than_{FEWEST_CELLS}_cells"]
    if flags:
        yield f"Quality flags of slide {slide.slide_id}: {', '.join(flags)}."


def _pooled(groups: Sequence[SpecimenReport]) -> Figures | None:
    """The specimen's figures, if all its slides are of one stain and release, and its replicates are known to agree."""
    if len(groups) != 1:
        return None
    [group] = groups
    agrees = group.agreement.assessed and group.agreement.replicates_agree
    return _figures(group) if agrees or len(group.slides) == 1 else None


def _notes(
    report: Report,
    groups: Sequence[SpecimenReport],
    smears: Sequence[SmearResult],
    pooled: Figures | None,
    is_test: bool,
) -> Iterator[str]:
    if is_test:
        yield f"Test data, not for clinical use{f': {report.warning}' if report.warning else ''}."
    yield "Not signed: no person has confirmed this result."
    if report.replaces is not None:
        yield f"Revision {report.revision}, instead of revision {report.replaces}: {report.reason}."
    if pooled is not None and pooled.interpretation is None:
        low, high = pooled.regions.normal.low_pct, pooled.regions.normal.high_pct
        yield (
            f"The 95 % interval of the normal forms, {low:.1f} to {high:.1f} %, spans the 5th centile of"
            f" {CENTILE_5_NORMAL_PCT:.0f} %: it is not known on which side they lie."
        )
    if len(groups) > 1:
        yield "Its slides have several stains or were classified by several releases: they are not joined."
    for agreement in (group.agreement for group in groups):
        if not agreement.assessed:
            yield f"Replicates: {agreement.detail}."
        elif agreement.replicates_agree:
            yield f"The replicates agree: {agreement.replicate_1_pct} and {agreement.replicate_2_pct} % normal forms."
        else:
            yield f"{(agreement.advice or 'The replicates differ').capitalize()}."
    slides = {smear.slide.slide_id for smear in smears}
    yield from (
        f"{shared.text}."[0].upper() + f"{shared.text}."[1:]
        for shared in report.shared_fields
        if shared.slide_id in slides
    )
    yield METHOD_NOTE
