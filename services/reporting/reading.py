"""Reads the report of a batch from the database; it may be asked for at any time."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.orm import Session

from services.database.states import BATCH_CLOSED, BatchState, SlideState
from services.imaging.types import NotCounted
from services.releases.schema import ReleaseKind
from services.reporting import queries
from services.reporting.corrected import Correction
from services.reporting.distributions import by_reason, distribution, normal_forms, region_shares
from services.reporting.issues import latest_issue
from services.reporting.queries import (
    AnalysisRow,
    BatchRow,
    ConfidenceRow,
    MeasureRow,
    ReleaseRow,
    RemarkedField,
    SharedRow,
    SlideRow,
)
from services.reporting.references import (
    CENTILE_5_INTERVAL_PCT,
    CENTILE_5_NORMAL_PCT,
    CENTILE_5_SOURCE,
    CENTILE_5_TEXT,
    FEWEST_CELLS,
    LOW_CONFIDENCE,
)
from services.reporting.report import (
    SCHEMA,
    WARNINGS,
    AnalysisReport,
    Confidence,
    FieldSetAside,
    Indices,
    LaterAnalysis,
    ManifestProblem,
    MeasureSummary,
    Reference,
    ReleaseReport,
    Report,
    SharedFields,
    SlideFields,
    SlideReport,
    Summary,
    Voided,
)
from services.reporting.specimens import specimen_reports
from services.sample_types import SampleType

REFERENCE: Final = Reference(
    normal_centile_5_pct=CENTILE_5_NORMAL_PCT,
    normal_centile_5_interval_pct=CENTILE_5_INTERVAL_PCT,
    source=CENTILE_5_SOURCE,
    meaning=CENTILE_5_TEXT,
)
INDICES: Final = Indices(
    MAI="not assessable",
    TZI="not assessable",
    SDI="not assessable",
    reason="these indices count all defects of a cell; the networks name one class per cell, so multiple anomalies,"
    " teratozoospermia and sperm deformity indices would be 1 by construction or too low",
)


def read_report(session: Session, batch_key: int, state: BatchState | None = None) -> Report:
    """The report of a batch, without files, under the revision that was issued last if the batch is closed.

    `state` stands instead of the batch's own, when it is about to become that.

    Raises:
        NoSuchBatch: there is none.
    """
    batch = queries.batch_row(session, batch_key)
    counts = queries.class_counts(session, batch)
    correction = Correction.of_batch(session, batch)
    slides = _slides(session, batch, counts, correction)
    releases = [_release(row) for row in queries.release_rows(session, batch.release_ids or [])]
    kinds = {release.kind for release in releases}
    shared = queries.shared_rows(session, batch)
    report = Report(
        warning=_void_warning(batch) or next((warning for kind, warning in WARNINGS.items() if kind in kinds), None),
        schema_version=SCHEMA,
        lab=batch.lab,
        batch_id=batch.batch_id,
        state=state or BatchState(batch.state),
        received_at=batch.received_at,
        received_on=batch.received_on,
        time_zone=batch.time_zone,
        night=batch.night,
        revision=None,
        issued_at=None,
        replaces=None,
        reason=None,
        voided=_voided(batch),
        shared_fields=tuple(_shared(row, batch) for row in shared),
        release=releases[0] if releases else None,
        other_releases=tuple(releases[1:]),
        reference=REFERENCE,
        indices=INDICES,
        summary=_summary(batch, slides),
        specimens=specimen_reports(slides, counts, correction, queries.counts_before(session, batch)),
        slides=slides,
        problems=tuple(ManifestProblem.model_validate(problem) for problem in batch.problems),
        notes=(),
        files=(),
    )
    if state is not None or report.state not in BATCH_CLOSED:
        return report
    issue = latest_issue(queries.events(session, batch_key))
    if issue is None:
        return report
    return report.as_issued(issue.revision, issue.issued_at, issue.replaces, issue.reason)


def _voided(batch: BatchRow) -> Voided | None:
    return None if batch.voided_at is None else Voided(at=batch.voided_at, by=batch.voided_by, why=batch.void_why)


def _void_warning(batch: BatchRow) -> str | None:
    if batch.voided_at is None:
        return None
    return f"VOIDED by {batch.voided_by} on {batch.voided_at:%Y-%m-%d}: {batch.void_why}. Nothing of this batch counts."


def _shared(row: SharedRow, batch: BatchRow) -> SharedFields:
    here = row.first_batch_key == batch.batch_key
    first = f"slide {row.first_slide_id}" + ("" if here else f" of batch {row.first_batch_id}")
    fields = "1 image" if row.fields == 1 else f"{row.fields} images"
    advice = "" if here else "; if the batch was sent twice, void one of the two: morphbatch void"
    slide = f"slide {row.slide_id}"
    if row.specimen != row.first_specimen:
        slide, first = f"{slide} of specimen {row.specimen}", f"{first}, of specimen {row.first_specimen},"
        advice = (
            f"; find out whose {'it is' if row.fields == 1 else 'they are'}: both specimens count its cells{advice}"
        )
    return SharedFields(
        slide_id=row.slide_id,
        fields=row.fields,
        first_batch=row.first_batch_id,
        first_slide_id=row.first_slide_id,
        text=f"{slide} has {fields} that {first} has too{advice}",
    )


def _release(row: ReleaseRow) -> ReleaseReport:
    by_class = None if row.fusion_alpha_by_class is None else tuple(row.fusion_alpha_by_class)
    return ReleaseReport(
        id=row.release_id,
        kind=ReleaseKind(row.kind),
        fusion_weight=by_class if row.fusion_alpha is None else row.fusion_alpha,
        fusion_weight_of="efficientnetv2_s",
        crop_px=row.crop_px,
        crop_um=row.crop_um,
        minimum_crop_inside_share=row.minimum_crop_inside_share,
        git_commit=row.git_commit,
    )


def _summary(batch: BatchRow, slides: Sequence[SlideReport]) -> Summary:
    return Summary(
        slides=batch.slides,
        slides_by_state=dict(sorted(Counter(slide.state for slide in slides).items())),
        fields=batch.fields,
        fields_used=batch.fields_used,
        cells=batch.cells,
        cells_not_counted=batch.cells_not_counted,
        not_counted_by_reason=by_reason(slide.not_counted_by_reason for slide in slides),
        on_border=batch.on_border,
        objects_rejected=batch.objects_rejected,
        seconds=batch.seconds,
    )


def _slides(
    session: Session, batch: BatchRow, counts: Mapping[str, Counter[int]], correction: Correction
) -> tuple[SlideReport, ...]:
    analyses = {row.slide_id: row for row in queries.analysis_rows(session, batch)}
    confidence = {row.slide_id: row for row in queries.confidence_rows(session, batch)}
    measures: dict[str, list[MeasureRow]] = defaultdict(list)
    for measure in queries.measure_rows(session, batch):
        measures[measure.slide_id].append(measure)
    remarked: dict[str, list[RemarkedField]] = defaultdict(list)
    for field in queries.remarked_fields(session, batch):
        remarked[field.slide_id].append(field)
    of_others = queries.images_of_another_specimen(session, batch.batch_key)
    return tuple(
        _slide(
            row,
            analyses.get(row.slide_id),
            counts.get(row.slide_id, Counter()),
            confidence.get(row.slide_id),
            measures[row.slide_id],
            _flags(row, remarked[row.slide_id], of_others.get(row.slide_id, 0)),
            remarked[row.slide_id],
            correction,
        )
        for row in queries.slide_rows(session, batch)
    )


def _slide(
    row: SlideRow,
    analysis: AnalysisRow | None,
    counts: Counter[int],
    confidence: ConfidenceRow | None,
    measures: Sequence[MeasureRow],
    flags: tuple[str, ...],
    remarked: Sequence[RemarkedField],
    correction: Correction,
) -> SlideReport:
    state = SlideState(row.state)
    set_aside = tuple(
        FieldSetAside(field=field.field, reason=field.reason, detail=field.detail)
        for field in remarked
        if field.reason is not None
    )
    return SlideReport(
        slide_id=row.slide_id,
        specimen=row.specimen,
        replicate=row.replicate,
        stain=row.stain,
        um_per_px=row.um_per_px,
        collected_at=row.collected_at,
        day=row.day,
        order_number=row.order_number,
        accession_number=row.accession_number,
        sample_type=None if row.sample_type is None else SampleType(row.sample_type),
        stain_lot=row.stain_lot,
        state=state,
        # Of a slide that is done they are left over from an attempt that failed.
        reason=row.reason if state is not SlideState.DONE else None,
        detail=row.detail if state is not SlideState.DONE else None,
        release_id=row.release_id,
        release_kind=None if row.release_kind is None else ReleaseKind(row.release_kind),
        analysis=None if analysis is None else _analysis(analysis),
        later=_later(row),
        cells=row.cells,
        cells_not_counted=sum(row.not_counted_by_reason.values()),
        not_counted_by_reason={NotCounted(reason): cells for reason, cells in row.not_counted_by_reason.items()},
        on_border=row.on_border,
        objects_rejected=row.objects_rejected,
        fields=SlideFields(given=row.fields, used=row.fields_used, set_aside=set_aside),
        quality_flags=flags,
        normal_forms=normal_forms(counts),
        distribution=distribution(counts),
        regions=region_shares(counts),
        corrected=correction.of_slide(row.slide_id, row.release_id),
        confidence=None if confidence is None else _confidence(confidence),
        morphometry=tuple(_measure(measure) for measure in measures) or None,
        attempts=row.attempts,
        seconds=row.timings,
        files=(),
    )


def _analysis(row: AnalysisRow) -> AnalysisReport:
    return AnalysisReport(
        version=row.version,
        asked_at=row.queued_at,
        asked_by=row.asked_by,
        why=row.why,
        software=row.software,
        detector=row.detector,
        form=row.form,
        settings=row.settings,
        digest=row.made_with_sha256,
    )


def _later(row: SlideRow) -> LaterAnalysis | None:
    if row.later_version is None or row.later_state is None:
        return None
    state = SlideState(row.later_state)
    return LaterAnalysis(version=row.later_version, state=state, reason=row.later_reason, detail=row.later_detail)


def _flags(row: SlideRow, remarked: Sequence[RemarkedField], of_others: int) -> tuple[str, ...]:
    """Why a slide's figures deserve a second look; the flags of its fields with the number of fields.

    `of_others` of its images are those of another specimen too.
    """
    set_aside = sum(field.reason is not None for field in remarked)
    warned = Counter(flag for field in remarked for flag in field.flags)
    return (
        *((f"fewer_than_{FEWEST_CELLS}_cells",) if row.fewer_than_200_cells else ()),
        *((f"fields_set_aside:{set_aside}",) if set_aside else ()),
        *((f"images_of_other_specimen:{of_others}",) if of_others else ()),
        *(f"{flag}:{fields}" for flag, fields in sorted(warned.items())),
    )


def _confidence(row: ConfidenceRow) -> Confidence:
    return Confidence(
        mean_pct=round(row.mean_confidence_pct, 2),
        low_share_pct=round(row.low_confidence_pct, 2),
        low_means_below=LOW_CONFIDENCE,
    )


def _measure(row: MeasureRow) -> MeasureSummary:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return MeasureSummary(
        measure=row.measure,
        unit=row.unit,
        cells_measured=row.cells_measured,
        median=rounded(row.median),
        p05=rounded(row.p05),
        p95=rounded(row.p95),
        who_range=None if row.who_low is None or row.who_high is None else (row.who_low, row.who_high),
        who_stain=row.who_stain,
        within_who_pct=rounded(row.within_who_pct),
    )
