"""The report of a batch as one document, read from the database; it may be asked for at any time."""

from collections import Counter, defaultdict
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from services.database.states import BatchState, SlideState
from services.errors import PermanentError
from services.reporting.distributions import INDICES, agreement, distribution, normal_forms, region_shares
from services.reporting.references import FEWEST_CELLS, LOW_CONFIDENCE, LOWER_LIMIT_NORMAL_PCT, LOWER_LIMIT_SOURCE

SCHEMA: Final = "morphbatch.report/1"
WARNINGS: Final[dict[str, str]] = {
    "untrained": "UNTRAINED NETWORKS: classes are meaningless; counts, boxes and measures are real",
    "demonstration": "demonstration, generated images, not for clinical use",
}
HAS_RESULT: Final = frozenset({SlideState.DONE, SlideState.INSUFFICIENT})


class NoSuchBatch(PermanentError):
    """The database has no batch of that key."""

    reason = "unknown_batch"


def build_report(session: Session, batch_key: int, state: BatchState | None = None) -> dict[str, Any]:
    """The report of a batch; `state` is written instead of the batch's own, when it is about to become that.

    Everything is JSON. A slide without a result has its state and reason, and `None` where its result would be.

    Raises:
        NoSuchBatch: there is none.
    """
    batch = _rows(session, "select * from reporting.batch_overview where batch_key = :id", id=batch_key)
    if not batch:
        raise NoSuchBatch(f"no batch has the key {batch_key}")
    head = batch[0]
    slides = _slides(session, batch_key, head["received_on"])
    releases = _releases(session, head["release_ids"] or [])
    problems = session.execute(text("select problems from batch where id = :id"), {"id": batch_key}).scalar_one()
    warning = next((WARNINGS[kind] for kind in WARNINGS if kind in {r["kind"] for r in releases}), None)
    counts: dict[str, Counter[int]] = {s["slide_id"]: s.pop("_counts") for s in slides}
    return {
        **({"warning": warning} if warning else {}),
        "schema": SCHEMA,
        "lab": head["lab"],
        "batch": head["batch_id"],
        "state": str(state or head["state"]),
        "received_at": head["received_at"].isoformat(),
        "release": releases[0] if releases else None,
        "other_releases": releases[1:],
        "reference": {
            "normal_forms_lower_limit_pct": LOWER_LIMIT_NORMAL_PCT,
            "source": LOWER_LIMIT_SOURCE,
            "meaning": "a reference beside the interval of a count; not a diagnosis",
        },
        "indices": INDICES,
        "summary": {
            "slides": head["slides"],
            "slides_by_state": dict(sorted(Counter(s["state"] for s in slides).items())),
            "fields": int(head["fields"]),
            "fields_used": int(head["fields_used"]),
            "cells": head["cells"],
            "on_border": head["on_border"],
            "objects_rejected": head["objects_rejected"],
            "seconds": head["seconds"],
        },
        "specimens": _specimens(slides, counts),
        "slides": slides,
        "problems": problems,
        "notes": [],
    }


def _rows(session: Session, query: str, **values: object) -> list[RowMapping]:
    return list(session.execute(text(query), values).mappings())


def _releases(session: Session, ids: list[str]) -> list[dict[str, Any]]:
    """The releases in use, the newest first."""
    rows = _rows(
        session, "select * from reporting.release where release_id = any(:ids) order by created_at desc, 1", ids=ids
    )
    return [
        {
            "id": row["release_id"],
            "kind": row["kind"],
            "fusion_weight": row["fusion_alpha_by_class"] if row["fusion_alpha"] is None else row["fusion_alpha"],
            "fusion_weight_of": "efficientnetv2_s",
            "crop_px": row["crop_px"],
            "crop_um": row["crop_um"],
            "git_commit": row["git_commit"],
        }
        for row in rows
    ]


def _slides(session: Session, batch_key: int, day: object) -> list[dict[str, Any]]:
    key = {"id": batch_key, "day": day}
    of_batch = "where batch_key = :id and received_on = :day"
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for row in _rows(
        session, f"select slide_id, class_index, cells from reporting.class_distribution {of_batch}", **key
    ):
        counts[row["slide_id"]][row["class_index"]] = row["cells"]
    confidence = {
        r["slide_id"]: r for r in _rows(session, f"select * from reporting.confidence_by_slide {of_batch}", **key)
    }
    measures: dict[str, list[RowMapping]] = defaultdict(list)
    for row in _rows(
        session,
        "select v.* from reporting.morphometry_by_slide v join reporting.measure m using (measure)"
        " where batch_key = :id and received_on = :day order by slide_id, m.position",
        **key,
    ):
        measures[row["slide_id"]].append(row)
    fields: dict[str, list[RowMapping]] = defaultdict(list)
    for row in _rows(
        session,
        "select slide_id, field, reason, detail, flags from reporting.quality_by_field"
        f" {of_batch} and (reason is not null or flags <> '{{}}') order by slide_id, field_position",
        **key,
    ):
        fields[row["slide_id"]].append(row)
    slides = []
    for row in _rows(session, f"select * from reporting.slide_result {of_batch} order by position", **key):
        slide = row["slide_id"]
        slides.append(_slide(row, counts[slide], confidence.get(slide), measures[slide], fields[slide]))
    return slides


def _slide(
    row: RowMapping,
    counts: Counter[int],
    confidence: RowMapping | None,
    measures: list[RowMapping],
    fields: list[RowMapping],
) -> dict[str, Any]:
    warned = Counter(flag for field in fields for flag in field["flags"])
    set_aside = [
        {"field": f["field"], "reason": f["reason"], "detail": f["detail"]} for f in fields if f["reason"] is not None
    ]
    return {
        "slide_id": row["slide_id"],
        "specimen": row["specimen"],
        "replicate": row["replicate"],
        "stain": row["stain"],
        "um_per_px": row["um_per_px"],
        "state": row["state"],
        "reason": row["reason"] if row["state"] != SlideState.DONE else None,
        "detail": row["detail"] if row["state"] != SlideState.DONE else None,
        "release_id": row["release_id"],
        "release_kind": row["release_kind"],
        "cells": row["cells"],
        "on_border": row["on_border"],
        "objects_rejected": row["objects_rejected"],
        "fields": {"given": row["fields"], "used": row["fields_used"], "set_aside": set_aside},
        "quality_flags": _flags(row, warned, len(set_aside)),
        "normal_forms": normal_forms(counts),
        "distribution": distribution(counts) or None,
        "regions": region_shares(counts) if counts else None,
        "confidence": confidence and _confidence(confidence),
        "morphometry": [_measure(m) for m in measures] or None,
        "attempts": row["attempts"],
        "seconds": row["timings"],
        "files": [],
        "_counts": counts,
    }


def _flags(row: RowMapping, warned: Counter[str], set_aside: int) -> list[str]:
    """Why a slide's figures deserve a second look; the flags of its fields with the number of fields."""
    flags = []
    if row["fewer_than_200_cells"]:
        flags.append(f"fewer_than_{FEWEST_CELLS}_cells")
    if set_aside:
        flags.append(f"fields_set_aside:{set_aside}")
    return flags + [f"{flag}:{n}" for flag, n in sorted(warned.items())]


def _confidence(row: RowMapping) -> dict[str, Any]:
    return {
        "mean_pct": round(row["mean_confidence_pct"], 2),
        "low_share_pct": round(row["low_confidence_pct"], 2),
        "low_means_below": LOW_CONFIDENCE,
    }


def _measure(row: RowMapping) -> dict[str, Any]:
    def rounded(name: str) -> float | None:
        return None if row[name] is None else round(row[name], 3)

    return {
        "measure": row["measure"],
        "unit": row["unit"],
        "cells_measured": row["cells_measured"],
        "median": rounded("median"),
        "p05": rounded("p05"),
        "p95": rounded("p95"),
        "who_range": None if row["who_low"] is None else [row["who_low"], row["who_high"]],
        "within_who_pct": rounded("within_who_pct"),
    }


def _specimens(slides: list[dict[str, Any]], counts: dict[str, Counter[int]]) -> list[dict[str, Any]]:
    """The slides with a result joined by specimen, stain and release: only those are counts of one thing."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for slide in slides:
        if slide["state"] in HAS_RESULT:
            groups[slide["specimen"], slide["stain"], slide["release_id"]].append(slide)
    specimens = []
    for (specimen, stain, release_id), members in sorted(groups.items()):
        by_replicate: dict[int, Counter[int]] = defaultdict(Counter)
        for slide in members:
            by_replicate[slide["replicate"]].update(counts[slide["slide_id"]])
        joined = sum(by_replicate.values(), Counter[int]())
        specimens.append(
            {
                "specimen": specimen,
                "stain": stain,
                "release_id": release_id,
                "slides": [slide["slide_id"] for slide in members],
                "cells": joined.total(),
                "agreement": agreement(by_replicate[1], by_replicate[2])
                if len(by_replicate) == 2
                else {"assessed": False, "reason": "one replicate only"},
                "normal_forms": normal_forms(joined),
                "distribution": distribution(joined) or None,
                "regions": region_shares(joined) if joined else None,
            }
        )
    return specimens
