"""The same images in two slides or two batches, on a real Postgres: told, counted once, and taken out by a person."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from services.batches.closing import close_batch
from services.batches.due import sweep_database
from services.batches.queries import batches_sent_twice
from services.batches.voiding import NotVoidable, restore_batch, void_batch
from services.database.session import transaction
from services.storage import ObjectStore
from tests.integration.analysis.slides import Hints, drawn, encode, one, run, submit
from tests.integration.servers import Postgres

Field = NDArray[np.uint8]


def report_of(store: ObjectStore, batch_id: str, revision: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(f"results/berlin/{batch_id}/{revision}report.json", max_bytes=10**7))
    return found


def counted(engine: Engine) -> set[Any]:
    """The cells in every place that counts them."""
    places = (
        "(select coalesce(sum(cells), 0) from reporting.class_distribution)",
        "(select coalesce(sum(cells), 0) from reporting.region_share)",
        "(select coalesce(sum(cells), 0) from reporting.specimen_distribution)",
        "(select coalesce(sum(cells), 0) from reporting.slide_result)",
        "(select coalesce(sum(cells), 0) from reporting.batch_overview)",
        "(select coalesce(sum(cells), 0) from reporting.throughput_by_night)",
        "(select coalesce(sum(cells), 0) from reporting.quality_by_field)",
        "(select coalesce(sum(cells), 0) from reporting.confidence_by_slide)",
        "(select count(*) from reporting.cell)",
    )
    return {int(found) for found in one(engine, f"select {', '.join(places)}")}


def test_a_batch_that_was_sent_twice_is_told_and_can_be_voided_and_restored(
    engine: Engine, empty_bucket: ObjectStore, good: Field
) -> None:
    fields = {"a": {"f.png": encode(good[..., ::-1])}}
    for batch_key, batch_id in enumerate(("night-1", "night-2"), 1):
        [analysis] = submit(engine, empty_bucket, fields, batch_id=batch_id)
        run(engine, empty_bucket, analysis)
        close_batch(engine, empty_bucket, batch_key)
    cells = one(engine, "select cells_classified from analysis where id = 1").cells_classified
    assert counted(engine) == {2 * cells}
    [shared] = report_of(empty_bucket, "night-2")["shared_fields"]
    assert (shared["fields"], shared["first_batch"]) == (1, "night-1")
    assert "slide a has 1 image that slide a of batch night-1 has too" in shared["text"]
    assert report_of(empty_bucket, "night-1")["shared_fields"] == []
    with transaction(engine) as session:
        [twice] = batches_sent_twice(session, 30)
    assert (twice.batch_id, twice.first_batch_id, twice.fields) == ("night-2", "night-1", 1)

    void_batch(engine, 2, by="anna", why="sent twice")
    assert counted(engine) == {cells}, "at once"
    with pytest.raises(NotVoidable, match="by anna: sent twice"):
        void_batch(engine, 2, by="anna", why="again")
    hints = Hints()
    sweep_database(engine, hints, republish_s=60)
    assert hints.sent == [("close", 2)]
    close_batch(engine, empty_bucket, 2)
    voided = report_of(empty_bucket, "night-2")
    assert next(iter(voided)) == "warning"
    assert voided["warning"].startswith("VOIDED by anna on ")
    assert (voided["voided"]["why"], voided["slides"], voided["summary"]["cells"]) == ("sent twice", [], 0)
    assert (voided["revision"], voided["replaces"], voided["reason"]) == (2, 1, "batch voided by anna: sent twice")
    assert report_of(empty_bucket, "night-2", "revisions/1/")["summary"]["cells"] == cells
    assert one(engine, "select count(*) from cell") == (2 * cells,), "nothing is deleted"
    assert one(engine, "select count(*), bool_or(counts) from reporting.analysis_history where batch_key = 2") == (
        1,
        False,
    )
    with transaction(engine) as session:
        assert batches_sent_twice(session, 30) == []

    restore_batch(engine, 2, by="anna", why="it was another night")
    assert counted(engine) == {2 * cells}
    close_batch(engine, empty_bucket, 2)
    assert (report_of(empty_bucket, "night-2")["revision"], report_of(empty_bucket, "night-2")["voided"]) == (3, None)
    kinds = "select array_agg(kind order by id) from audit_event where kind in ('batch_voided', 'batch_restored')"
    assert one(engine, kinds)[0] == ["batch_voided", "batch_restored"]
    with pytest.raises(NotVoidable, match="it counts"):
        restore_batch(engine, 2, by="anna", why="again")


FORMS = {
    "same bytes": encode,
    "TIFF": lambda pixels: encode(pixels, ".tif"),
    "JPEG, turned": lambda pixels: encode(np.rot90(pixels), ".jpg"),
}


@pytest.mark.parametrize("form", FORMS)
def test_replicates_of_the_same_images_are_not_compared_and_each_image_counts_once(
    engine: Engine, empty_bucket: ObjectStore, good: Field, form: str
) -> None:
    pixels = good[..., ::-1]
    slides = {
        "a": {"1.png": encode(pixels)},
        "b": {"1.file": FORMS[form](pixels), "2.png": encode(drawn(4)[..., ::-1])},
    }
    for analysis in submit(engine, empty_bucket, slides, replicates={"a": 1, "b": 2}):
        run(engine, empty_bucket, analysis)
    close_batch(engine, empty_bucket, 1)
    once = one(
        engine,
        "select count(*) from cell where not_counted is null"
        " and field_id in (select id from field where key not like '%.file')",
    )[0]
    report = report_of(empty_bucket, "night-1")
    [specimen] = report["specimens"]
    assert specimen["agreement"]["assessed"] is False
    assert specimen["agreement"]["reason"] == "same_images"
    assert one(engine, "select bool_or(replicates_agree) from reporting.specimen_distribution") == (None,)
    assert (specimen["cells"], specimen["normal_forms"]["cells_total"]) == (once, once)
    assert one(engine, "select sum(cells), max(cells_total) from reporting.specimen_distribution") == (once, once)
    [told] = report["shared_fields"]
    assert told["text"] == "slide b has 1 image that slide a has too"
    assert report["summary"]["cells"] > once, "each slide keeps what was found on it"
    assert not any("other_specimen" in flag for slide in report["slides"] for flag in slide["quality_flags"])


@pytest.mark.parametrize("form", ["same bytes", "TIFF"])
def test_a_picture_of_two_specimens_is_told_of_both(
    engine: Engine, empty_bucket: ObjectStore, good: Field, form: str
) -> None:
    pixels = good[..., ::-1]
    slides = {
        "a": {"1.png": encode(pixels), "2.png": encode(drawn(4)[..., ::-1])},
        "b": {"1.png": FORMS[form](pixels)},
        "c": {"1.png": encode(drawn(5)[..., ::-1])},
    }
    for analysis in submit(engine, empty_bucket, slides, specimens={"b": "S-2", "c": "S-3"}):
        run(engine, empty_bucket, analysis)
    close_batch(engine, empty_bucket, 1)
    report = report_of(empty_bucket, "night-1")
    flags = {slide["slide_id"]: "images_of_other_specimen:1" in slide["quality_flags"] for slide in report["slides"]}
    assert flags == {"a": True, "b": True, "c": False}
    assert ["images_of_other_specimen:1" in specimen["quality_flags"] for specimen in report["specimens"]] == [
        *(True, True, False)
    ]
    [told] = report["shared_fields"]
    assert told["text"] == (
        "slide b of specimen S-2 has 1 image that slide a, of specimen S-1, has too; find out whose it is: both"
        " specimens count its cells"
    )
    assert [specimen["cells"] for specimen in report["specimens"]] == [slide["cells"] for slide in report["slides"]]
    with transaction(engine) as session:
        assert batches_sent_twice(session, 30) == []
    pairs = one(engine, "select array_agg(field || '=' || other_field order by field) from reporting.same_image")
    assert pairs == (["a/1.png=b/1.png", "b/1.png=a/1.png"],)


def test_an_image_that_is_set_aside_in_one_slide_counts_in_the_other(
    postgres: Postgres, engine: Engine, empty_bucket: ObjectStore, good: Field
) -> None:
    slides = {slide: {"1.png": encode(good[..., ::-1])} for slide in ("a", "b")}
    for analysis in submit(engine, empty_bucket, slides, replicates={"a": 1, "b": 2}):
        run(engine, empty_bucket, analysis)
    repeated = "select coalesce(sum(cells), 0), (select cells_classified from analysis where id = 2)"
    repeated += " from reporting.counted_before"
    before, cells = one(engine, repeated)
    assert before == cells > 0
    with postgres.as_owner(engine) as session:
        session.execute(text("update field_result set reason = 'field_um_per_px_not_of_slide' where field_id = 1"))
    assert one(engine, repeated) == (0, cells)
