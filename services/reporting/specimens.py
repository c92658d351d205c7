"""The specimens of a batch: the slides of each joined, and its replicates compared."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.reporting.corrected import Correction
from services.reporting.distributions import Counts, by_reason, distribution, normal_forms, region_shares
from services.reporting.references import FEWEST_CELLS
from services.reporting.report import Agreement, AgreementNotAssessed, NotAssessed, SlideReport, SpecimenReport
from services.reporting.statistics import ALPHA, replicate_difference
from services.stains import stain_name
from services.taxonomy import NORMAL

_NOTHING: Final[Mapping[str, Counts]] = {}


def specimen_reports(
    slides: Sequence[SlideReport],
    counts: Mapping[str, Counts],
    correction: Correction,
    before: Mapping[str, Counts] = _NOTHING,
) -> tuple[SpecimenReport, ...]:
    """The specimens with a result, each by stain and release; `counts` by slide_id.

    Replicates that disagree are not joined. `before` are the cells of images that an earlier slide of the specimen has
    too: they are counted there alone.
    """
    groups: dict[tuple[str, str, str], list[SlideReport]] = defaultdict(list)
    for slide in slides:
        if slide.has_result and slide.release_id is not None:
            groups[slide.specimen, slide.stain, slide.release_id].append(slide)
    specimens = []
    for (specimen, stain, release_id), members in sorted(groups.items(), key=lambda group: group[0]):
        by_replicate: dict[int, Counter[int]] = defaultdict(Counter)
        for slide in members:
            by_replicate[slide.replicate].update(counts.get(slide.slide_id, {}))
        others = [slide for slide in slides if slide.specimen == specimen and slide not in members]
        again = [slide.slide_id for slide in members if before.get(slide.slide_id)]
        compared = _agreement(by_replicate, members, others, again)
        joined = sum(by_replicate.values(), Counter[int]())
        for slide_id in again:
            joined.subtract(before[slide_id])
        differ = compared.assessed and not compared.replicates_agree
        pooled = Counter[int]() if differ else joined
        slide_ids = tuple(slide.slide_id for slide in members)
        # A specimen is collected once; where its slides do not say the same, the first is nearest to it.
        earliest = min(members, key=lambda slide: (slide.collected_at is None, slide.collected_at, slide.slide_id))
        specimens.append(
            SpecimenReport(
                specimen=specimen,
                stain=stain,
                release_id=release_id,
                slides=slide_ids,
                collected_at=earliest.collected_at,
                day=earliest.day,
                order_number=_said(members, "order_number"),
                accession_number=_said(members, "accession_number"),
                sample_type=_said(members, "sample_type"),
                cells=joined.total(),
                cells_not_counted=sum(slide.cells_not_counted for slide in members),
                not_counted_by_reason=by_reason(slide.not_counted_by_reason for slide in members),
                agreement=compared,
                quality_flags=_flags(members, by_replicate, compared),
                normal_forms=normal_forms(pooled),
                distribution=distribution(pooled),
                regions=region_shares(pooled),
                corrected=None if differ else correction.of_specimen(slide_ids, release_id),
            )
        )
    return tuple(specimens)


def _said(members: Sequence[SlideReport], name: str) -> Any:
    """What the first slide that says it says; the manifest's check has none of the others say otherwise."""
    return next((said for slide in members if (said := getattr(slide, name)) is not None), None)


def _flags(
    members: Sequence[SlideReport], by_replicate: Mapping[int, Counts], compared: Agreement | AgreementNotAssessed
) -> tuple[str, ...]:
    """Why its figures deserve a second look; the flags of its slides with the number of slides."""
    short = sum(sum(counts.values()) < FEWEST_CELLS for counts in by_replicate.values())
    few = f"fewer_than_{FEWEST_CELLS}_cells"
    warned = Counter(flag for slide in members for flag in {flag.split(":")[0] for flag in slide.quality_flags} - {few})
    return (
        *((f"{few}:{short}",) if short else ()),
        *(("replicates_differ",) if compared.assessed and not compared.replicates_agree else ()),
        *(f"{flag}:{slides}" for flag, slides in sorted(warned.items())),
    )


def _agreement(
    by_replicate: Mapping[int, Counts],
    members: Sequence[SlideReport],
    others: Sequence[SlideReport],
    again: Sequence[str],
) -> Agreement | AgreementNotAssessed:
    """Whether the two replicates agree on the normal forms, and what to do if they do not.

    The slides `again` hold images of the others, so that they cannot confirm them.
    """
    totals = {replicate: sum(counts.values()) for replicate, counts in sorted(by_replicate.items())}
    if len(totals) == 2 and again:
        detail = f"not assessable: slide {', '.join(again)} is made of images of the other slide, at least in part"
        return AgreementNotAssessed(assessed=False, reason=NotAssessed.SAME_IMAGES, detail=detail)
    if why_not := _why_not(totals, members, others):
        return AgreementNotAssessed(assessed=False, reason=why_not[0], detail=why_not[1])
    first, second = ((by_replicate[replicate].get(NORMAL.index, 0), total) for replicate, total in totals.items())
    found = replicate_difference(first, second)
    return Agreement(
        assessed=True,
        replicates_agree=found.is_acceptable,
        replicate_1_pct=round(found.first_pct, 2),
        replicate_2_pct=round(found.second_pct, 2),
        difference_points=round(found.difference_points, 2),
        acceptable_points=found.acceptable_points,
        p_value=None if found.p_value is None else round(found.p_value, 4),
        alpha=ALPHA,
        method=found.method,
        advice=None
        if found.is_acceptable
        else "the replicates differ by more than chance explains and are not joined: count both slides again",
    )


def _why_not(
    totals: Mapping[int, int], members: Sequence[SlideReport], others: Sequence[SlideReport]
) -> tuple[NotAssessed, str] | None:
    """The first reason for which the replicates are not compared, as code and sentence.

    `totals` are the cells by replicate; `others` the slides of the specimen that `members` are not joined with.
    """
    if len(totals) < 2:
        (given,) = totals
        return _missing(given, members, [slide for slide in others if slide.replicate != given])
    if min(totals.values()) < FEWEST_CELLS:
        cells = " and ".join(f"{total} in replicate {replicate}" for replicate, total in totals.items())
        return NotAssessed.TOO_FEW_CELLS, f"not assessable: {cells}; {FEWEST_CELLS} cells in each are required"
    return None


def _missing(
    given: int, members: Sequence[SlideReport], of_the_other: Sequence[SlideReport]
) -> tuple[NotAssessed, str]:
    """Why there is only the replicate `given`, when the batch may hold slides `of_the_other` one."""
    stain, release_id = members[0].stain, members[0].release_id
    for slide in of_the_other:
        there = f"slide {slide.slide_id}, replicate {slide.replicate},"
        if not slide.has_result:
            return NotAssessed.NO_RESULT, f"{there} has no result: {slide.state}"
        if slide.stain != stain:
            named = f"{stain_name(slide.stain)}, not {stain_name(stain)}"
            return NotAssessed.OTHER_STAIN, f"{there} has another stain: {named}"
        return NotAssessed.OTHER_RELEASE, f"{there} was classified by release {slide.release_id}, not {release_id}"
    if len(members) > 1:
        return NotAssessed.SAME_NUMBER, f"its {len(members)} slides are all given as replicate {given}"
    return NotAssessed.ONE_REPLICATE, "one replicate only in this batch"
