"""The files of a mixed night, held against stored ones: whoever reads reports finds each key where it always was."""

import json
from pathlib import Path
from typing import Final

from sqlalchemy import text

from services.database.models import ModelRelease, Slide
from services.database.session import transaction
from services.database.states import BatchState, SlideState
from services.reporting.reading import read_report
from tests.integration.reporting.reporting_night import DOCUMENT, Night
from tests.integration.servers import Postgres

STORED: Final = Path(__file__).with_name("example")
ISSUED_AT: Final = "2026-11-24T05:06:07+00:00"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"

MADE_WITH: Final = {
    **{"software": "0.1.0+0123456789ab", "detector": "ba9876543210", "form": "openvino-fp32"},
    "settings": {"minimum_cells": 1, "max_field_bytes": 67108864, "max_field_pixels": 60000000},
}


def mixed(postgres: Postgres, night: Night) -> Night:
    """A slide of every kind: two releases, a field set aside, a field deleted since, one slide without an analysis."""
    by_class = {**DOCUMENT, "fusion": {"alpha": [0.25, *[0.5] * 17], "temperatures": {}}, "git_commit": COMMIT}
    with transaction(night.engine) as session:
        session.add(ModelRelease(id="r2", kind="trained", document=by_class))
        session.flush()
        session.execute(text("update model_release set created_at = '2026-11-01Z'"))
        session.execute(text("update model_release set created_at = '2026-11-02Z' where id = 'r2'"))
    night.slide(0, {"Normal": 8, "AmorfHead": 192}, cut={"Normal": 5, "PinHead": 2})
    night.slide(1, {"Normal": 14, "TwistedTail": 150, "ThinNeck": 36}, replicate=2)
    broken = night.slide(2, {}, specimen="S-02", state=SlideState.QUARANTINED, reason="checksum_mismatch")
    night.slide(3, {"PinHead": 3}, specimen="S-03", state=SlideState.INSUFFICIENT, reason="too_few_cells", fields=1)
    other = night.slide(4, {"Normal": 30, "DoubleTail": 5}, specimen="S-04", release="r2", fields=3)
    night.slide(5, {"Normal": 1, "RoundHead": 90}, specimen="S-04", release="r2", replicate=2)
    with postgres.as_owner(night.engine) as session:
        session.add(
            Slide(batch_key=night.batch_key, position=6, slide_id="slide-6", specimen="S-05", replicate=1,
                  stain="shorr", um_per_px=0.1)
        )  # fmt: skip
        session.execute(
            text(
                "update field_result set reason = 'checksum_mismatch', detail = 'field broken', width_px = null,"
                " height_px = null, quality = '{}', rejected = '[]' where analysis_id = :id"
                " and field_id = (select min(field_id) from field_result where analysis_id = :id)"
            ),
            {"id": broken},
        )
        session.execute(
            text(
                "update field_result set reason = 'field_out_of_focus', rejected = '[]' where analysis_id = :id"
                " and field_id = (select max(field_id) from field_result where analysis_id = :id)"
            ),
            {"id": other},
        )
        session.execute(
            text(
                """update analysis set timings = '{"fetch": 0.25, "total": 3.0, "cpu": {"fetch": 0.01}}',"""
                " attempts = 2 where id = :id"
            ),
            {"id": other},
        )
        session.execute(
            text(
                "update analysis set queued_at = '2026-11-23T01:02:04Z', made_with = cast(:made as jsonb)"
                " where release_id = 'r2'"
            ),
            {"made": json.dumps(MADE_WITH)},
        )
        session.execute(text("update analysis set queued_at = '2026-11-23T01:02:04Z' where release_id = 'r1'"))
        session.execute(
            text(
                "update batch set received_at = '2026-11-23T01:02:03.456Z',"
                """ problems = '[{"path": "slides[0]", "reason": "manifest_bad_value", "message": "is too long"}]'"""
            )
        )
    night.store.delete("incoming/berlin/night-1/slide-0/field-0.png")
    return night


def test_the_report_and_the_table_are_those_stored_byte_for_byte(postgres: Postgres, night: Night) -> None:
    issued_at = mixed(postgres, night).write(BatchState.COMPLETE_WITH_ERRORS)["issued_at"]
    for name in ("report.json", "slides.csv", "specimens.csv"):
        assert (
            night.get(name).decode().replace(night.store.bucket, "morphbatch").replace(issued_at, ISSUED_AT)
            == (STORED / name).read_bytes().decode()
        ), name


def test_a_batch_that_is_being_analysed_has_the_same_report_without_files(postgres: Postgres, night: Night) -> None:
    mixed(postgres, night)
    with transaction(night.engine) as session:
        live = json.loads(read_report(session, night.batch_key).as_json())
    closed = json.loads((STORED / "report.json").read_bytes())
    slides = [{**slide, "files": []} for slide in closed["slides"]]
    open_one = {"state": "analysing", "revision": None, "issued_at": None, "slides": slides, "notes": [], "files": []}
    assert live == {**closed, **open_one}
    assert list(live) == list(closed)
