"""Reports and reporting views on a real Postgres and a real object store."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sqlalchemy import text

from services.database.models import ModelRelease
from services.database.session import transaction
from services.database.states import BatchState, SlideState
from services.errors import OutageError
from services.reporting.exports.cells_parquet import CELL_SCHEMA
from services.reporting.exports.tables_csv import SLIDE_COLUMNS
from services.reporting.palette import WARNING_GROUND
from services.reporting.reading import read_report
from services.reporting.references import CENTILE_5_TEXT
from services.reporting.report import Report
from services.reporting.statistics import exact_p
from services.reporting.write import write_batch_report
from services.settings import Settings
from services.storage import StoreUnavailable
from services.taxonomy import CLASSES
from tests.integration.reporting.reporting_night import DOCUMENT, PREFIX, Night, fill
from tests.integration.servers import Postgres, S3Server


@dataclass(frozen=True)
class Written:
    """What a closed batch left in the store."""

    report: dict[str, Any]
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def written(postgres: Postgres, rclone: S3Server) -> Iterator[Written]:
    """The results of the same batch, written once for all tests that only read them."""
    with postgres.new_database() as engine:
        night = fill(Night(engine, rclone.new_bucket()))
        report = night.write(BatchState.COMPLETE_WITH_ERRORS)
        yield Written(report, {name: night.get(name) for name in night.results()})


def test_the_report_says_first_that_networks_are_untrained_and_holds_what_was_counted(written: Written) -> None:
    report = written.report
    assert next(iter(report)) == "warning"
    assert report["warning"].startswith("UNTRAINED NETWORKS: classes are meaningless")
    assert (report["lab"], report["batch_id"], report["state"]) == ("berlin", "night-1", "complete_with_errors")
    assert report["release"]["fusion_weight"] == 0.55
    assert report["indices"]["TZI"] == "not assessable"
    first = report["slides"][0]
    assert (first["slide_id"], first["state"], first["cells"], first["on_border"]) == ("slide-0", "done", 200, 2)
    assert len(first["distribution"]) == 18
    normal = first["normal_forms"]
    assert (normal["pct"], normal["low_pct"], normal["high_pct"]) == (4.0, 2.04, 7.69)
    assert "5th centile, 4 % (3.9–4.0); not a limit between fertile and infertile men" in normal["text"]
    assert {share["class_code"] for share in first["distribution"] if share["loinc"]} == {"normal"}
    assert [share["class_name_tr"] for share in first["distribution"][:2]] == ["Amorf baş", "Asimetrik boyun"]
    assert first["regions"]["head"]["cells"] == 192
    assert sum(region["cells"] for region in first["regions"].values()) == 200
    assert first["confidence"] == {"mean_pct": pytest.approx(72.25), "low_share_pct": 25.0, "low_means_below": 0.5}
    assert first["quality_flags"] == ["soft_focus:2"]
    assert first["seconds"] == {"total": 2.5}


def test_every_file_says_first_that_a_demonstration_is_not_for_clinical_use(night: Night) -> None:
    with transaction(night.engine) as session:
        session.execute(text("update model_release set kind = 'demonstration'"))
    night.slide(0, {"Normal": 4})
    report = night.write()
    said = "demonstration, generated images, not for clinical use"
    assert next(iter(report.items())) == ("warning", said)
    assert {slide["release_kind"] for slide in report["slides"]} == {"demonstration"}
    assert night.get("report.json").decode().splitlines()[1] == f'  "warning": "{said}",'
    header, row = csv.reader(io.StringIO(night.get("slides.csv").decode()))
    assert (header[0], row[0], row[header.index("release_kind")]) == ("warning", said, "demonstration")
    cells = pq.read_table(io.BytesIO(night.get("cells.parquet")))
    assert cells.schema.metadata[b"warning"] == said.encode()
    assert set(cells["release_kind"].to_pylist()) == {"demonstration"}
    assert night.get("slides/slide-0/cells-001.geojson").decode().startswith(f'{{"warning": "{said}"')
    for name in ("overlay-1", "sprites-1"):
        top = np.asarray(Image.open(io.BytesIO(night.get(f"slides/slide-0/{name}.jpg"))))[4]
        assert np.abs(top - np.array(WARNING_GROUND)).max() < 24, f"{name} has no banner on top"


def test_a_quarantined_slide_has_its_reason_and_no_distribution(written: Written) -> None:
    slide = written.report["slides"][2]
    assert (slide["state"], slide["reason"]) == ("quarantined", "checksum_mismatch")
    assert "field broken" in slide["detail"]
    assert slide["fields"]["used"] == 0
    for part in ("normal_forms", "distribution", "regions", "morphometry", "confidence"):
        assert slide[part] is None
    assert slide["files"] == []


def test_few_cells_are_a_result_with_a_flag(written: Written) -> None:
    slide = written.report["slides"][3]
    assert slide["state"] == "insufficient"
    assert "fewer_than_200_cells" in slide["quality_flags"]
    assert slide["normal_forms"]["low_pct"] == 0
    assert slide["normal_forms"]["high_pct"] > 50


def test_replicates_are_joined_and_compared(written: Written) -> None:
    joined, alone = written.report["specimens"]
    assert joined["slides"] == ["slide-0", "slide-1"]
    assert joined["normal_forms"]["cells"] == 22
    assert joined["normal_forms"]["cells_total"] == 400
    # 4 % and 7 %: mean 5.5, so 5 points are acceptable.
    assert joined["agreement"]["replicates_agree"] is True
    assert joined["agreement"]["acceptable_points"] == 5
    assert alone["agreement"]["reason"] == "one_replicate"


def test_report_and_view_judge_replicates_alike(night: Night) -> None:
    pairs = [
        ((4, 200), (12, 200)),
        ((4, 200), (13, 200)),
        ((4, 200), (12, 201)),
        ((3, 33), (4, 28)),
        ((5, 250), (30, 300)),
    ]
    for number, pair in enumerate(pairs):
        for replicate, (normal, total) in enumerate(pair, 1):
            counts = {"Normal": normal, "PinHead": total - normal}
            night.slide(2 * number + replicate, counts, specimen=f"S-{number}", replicate=replicate)
    report = night.write()
    with transaction(night.engine) as session:
        rows = session.execute(
            text(
                "select replicates_agree, cells, pct is null as bare, reporting.replicates_p(replicate_1_cells,"
                " replicate_1_total, replicate_2_cells, replicate_2_total) as p from reporting.specimen_distribution"
                " where class_name = 'Normal' order by specimen"
            )
        ).all()
    found = [specimen["agreement"].get("replicates_agree") for specimen in report["specimens"]]
    assert found == [row.replicates_agree for row in rows] == [True, False, True, None, False]
    assert [specimen["normal_forms"] is None for specimen in report["specimens"]] == [row.bare for row in rows]
    assert [row.cells for row in rows] == [16, None, 16, 7, None]
    for row, pair in zip(rows, pairs, strict=True):
        assert row.p == pytest.approx(exact_p(*pair), rel=1e-9)
    assert [row.bare for row in rows] == [False, True, False, False, True]
    assert report["specimens"][3]["agreement"]["detail"].startswith("not assessable: 33 in replicate 1 and 28 in")


def test_measures_that_could_not_be_taken_are_left_out_and_never_zero(written: Written) -> None:
    measures = {m["measure"]: m for m in written.report["slides"][0]["morphometry"]}
    length = measures["head_length_um"]
    assert (length["median"], length["cells_measured"]) == (4.2, 100)
    assert measures["vacuole_share"]["cells_measured"] == 0
    assert measures["vacuole_share"]["median"] is None


def test_a_range_measured_after_one_stain_is_not_printed_on_another(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 2})
    night.slide(1, {"Normal": 2})
    with postgres.as_owner(night.engine) as session:
        session.execute(text("update slide set stain = 'papanicolaou' where position = 1"))
    shorr, papanicolaou = (
        {m["measure"]: (m["who_range"], m["who_stain"], m["within_who_pct"]) for m in slide["morphometry"]}
        for slide in night.write()["slides"]
    )
    assert shorr["head_length_um"] == (None, "papanicolaou", None)
    assert papanicolaou["head_length_um"] == ([3.7, 4.7], "papanicolaou", 100)
    assert shorr["acrosome_share"] == papanicolaou["acrosome_share"] == ([0.4, 0.7], None, 100)


def test_the_same_rows_give_the_same_bytes_and_stale_files_go(full: Night) -> None:
    full.write()
    before = full.results()
    full.store.put(f"{PREFIX}slides/slide-0/overlay-9.jpg", b"of an earlier closing")
    full.store.put(f"{PREFIX}rejected.json", b"the intake's own")
    full.write()
    after = full.results()
    after.pop("rejected.json")
    assert after == before
    assert {"report.json", "slides.csv", "specimens.csv", "cells.parquet", "slides/slide-0/overlay-1.jpg"} <= set(after)


def test_report_json_comes_last_and_is_gone_while_files_change(full: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    full.write()
    order: list[str] = []
    announced: list[bool] = []
    real = full.store.put

    def put(key: str, data: bytes, content_type: str = "") -> Any:
        order.append(key)
        announced.append(full.store.stat(f"{PREFIX}report.json") is not None)
        return real(key, data, content_type)

    monkeypatch.setattr(full.store, "put", put)
    full.write()
    assert order[-1] == f"{PREFIX}report.json"
    assert len(order) > 3
    assert not any(announced)


def test_an_outage_is_raised_and_leaves_no_report(full: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    full.write()

    real = full.store.get

    def get(key: str, *, max_bytes: int) -> bytes:
        if key.startswith("incoming/"):
            raise StoreUnavailable(key)
        return real(key, max_bytes=max_bytes)

    monkeypatch.setattr(full.store, "get", get)
    with pytest.raises(OutageError):
        write_batch_report(full.engine, full.store, full.batch_key)
    assert full.store.stat(f"{PREFIX}report.json") is None


def test_a_field_that_is_gone_or_changed_costs_its_picture_only(full: Night) -> None:
    full.store.delete("incoming/berlin/night-1/slide-0/field-0.png")
    full.store.put("incoming/berlin/night-1/slide-1/field-1.png", b"other bytes")
    report = full.write()
    notes = "\n".join(report["notes"])
    assert "slide-0/field-0.png can no longer be drawn (field_missing)" in notes
    assert "slide-1/field-1.png can no longer be drawn (checksum_mismatch)" in notes
    assert "slides/slide-0/overlay-1.jpg" in report["slides"][0]["files"]


def test_a_field_that_analysis_could_not_decode_is_not_even_fetched(
    postgres: Postgres, full: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.as_owner(full.engine) as session:
        session.execute(
            text(
                "update field_result set reason = 'field_damaged', width_px = null, height_px = null where field_id ="
                " (select id from field where key = 'slide-0/field-0.png')"
            )
        )
    fetched: list[str] = []
    real = full.store.get

    def get(key: str, *, max_bytes: int) -> bytes:
        fetched.append(key)
        return real(key, max_bytes=max_bytes)

    monkeypatch.setattr(full.store, "get", get)
    report = full.write()
    assert "incoming/berlin/night-1/slide-0/field-1.png" in fetched
    assert "incoming/berlin/night-1/slide-0/field-0.png" not in fetched
    assert report["notes"] == []
    assert "slides/slide-0/overlay-1.jpg" in report["slides"][0]["files"]


def test_a_field_beyond_the_limits_of_the_analysis_is_not_decoded_for_a_picture(
    full: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.reporting.write.load_settings", lambda: Settings(max_field_pixels=640 * 480 - 1))
    assert "slide-0/field-0.png can no longer be drawn (field_too_many_pixels)" in "\n".join(full.write()["notes"])


def test_a_fault_in_drawing_becomes_a_note(full: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no scale")

    monkeypatch.setattr("services.reporting.pictures.overlay.draw_field", broken)
    report = full.write()
    assert "slide slide-0: pictures are missing: ZeroDivisionError: no scale" in report["notes"]
    assert report["slides"][0]["files"] == ["slides/slide-0/cells-001.geojson", "slides/slide-0/cells-002.geojson"]


def test_slides_csv_has_one_row_a_slide_and_stable_columns(written: Written) -> None:
    rows = list(csv.DictReader(io.StringIO(written.files["slides.csv"].decode())))
    assert tuple(rows[0]) == SLIDE_COLUMNS
    assert [row["slide_id"] for row in rows] == ["slide-0", "slide-1", "slide-2", "slide-3"]
    assert rows[0]["warning"].startswith("UNTRAINED")
    assert (rows[0]["amorphous_head_cells"], rows[0]["normal_centile_5_pct"]) == ("192", "4.0")
    assert (rows[0]["received_on"], rows[0]["replicates_agree"]) == ("2026-11-23", "true")
    assert (rows[2]["state"], rows[2]["normal_pct"]) == ("quarantined", "")
    assert rows[0]["head_length_um_median"] == "4.2"


def test_cells_parquet_has_every_cell_with_its_18_probabilities(written: Written) -> None:
    table = pq.read_table(io.BytesIO(written.files["cells.parquet"]))
    assert table.num_rows == 403
    assert table.column_names == CELL_SCHEMA.names
    assert table.schema.metadata[b"warning"].startswith(b"UNTRAINED")
    row = table.slice(0, 1).to_pylist()[0]
    assert row["class_name"] == "Normal"
    assert row["p_normal"] == pytest.approx(0.83)
    assert row["resnetv2_50_logits"][17] == 17
    assert row["head_outline_px"][:2] == [row["x0"], row["y0"] + 10]
    lengths = table["head_length_um"].to_pylist()
    assert lengths.count(None) == 201
    assert 0 not in lengths


def calibrated_release(night: Night) -> None:
    """Put release r2 on record, which knows its errors."""
    count = 1 + len(CLASSES)
    factor = [[0.0] * at + [0.1] for at in range(count)]
    known = {"mean": [0.0] * count, "factor": factor, "cells": 1000}
    document = {**DOCUMENT, "fusion": {**DOCUMENT["fusion"], "calibration": known}}
    with transaction(night.engine) as session:
        session.add(ModelRelease(id="r2", kind="trained", document=document))


def test_the_corrected_share_of_a_specimen_counts_an_image_of_two_slides_once(postgres: Postgres, night: Night) -> None:
    calibrated_release(night)
    for number in (0, 1):
        night.slide(number, {"Normal": 30, "RoundHead": 180}, release="r2", replicate=number + 1)
    found = []
    for images in (0, 1, 2):
        with postgres.as_owner(night.engine) as session:
            session.execute(
                text(
                    "update field f set sha256 = o.sha256 from field o join slide os on os.id = o.slide_id, slide s"
                    " where s.id = f.slide_id and s.position = 1 and os.position = 0 and o.position = f.position"
                    " and f.position < :images"
                ),
                {"images": images},
            )
        with transaction(night.engine) as session:
            report = read_report(session, night.batch_key)
        found.append(report.specimens[0])
    one_slide = report.slides[0].corrected
    assert one_slide is not None
    assert [specimen.cells for specimen in found] == [420, 315, 210]
    none, half, all_of_them = (specimen.corrected.normal_forms for specimen in found if specimen.corrected)
    assert all_of_them == one_slide.normal_forms
    widths = [share.high_pct - share.low_pct for share in (none, half, all_of_them)]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_shares_are_corrected_where_the_release_knows_its_errors(night: Night) -> None:
    calibrated_release(night)
    for number in (0, 1):
        night.slide(number, {"Normal": 30, "RoundHead": 180}, release="r2", replicate=number + 1)
    night.slide(2, {"Normal": 30}, specimen="S-02")
    report = night.write()
    first, _, uncalibrated = report["slides"]
    assert uncalibrated["corrected"] is None
    found = first["corrected"]
    assert [share["class_code"] for share in found["distribution"]] == [known.code for known in CLASSES]
    assert sum(share["pct"] for share in found["distribution"]) == pytest.approx(100, abs=0.2)
    normal, raw = found["normal_forms"], first["normal_forms"]
    # Each is said with 83 %, as it would be where classes are equal: of these 210, fewer are normal than are said so.
    assert normal["low_pct"] <= normal["pct"] < raw["pct"] < normal["high_pct"]
    of_both = report["specimens"][0]["corrected"]["normal_forms"]
    assert of_both["pct"] == pytest.approx(normal["pct"], abs=0.05)
    assert of_both["high_pct"] - of_both["low_pct"] < normal["high_pct"] - normal["low_pct"]
    rows = list(csv.DictReader(io.StringIO(night.get("slides.csv").decode())))
    assert [row["normal_corrected_pct"] for row in rows] == [str(normal["pct"]), str(normal["pct"]), ""]


def test_each_field_has_its_outlines_in_its_own_pixels(night: Night) -> None:
    night.slide(0, {"Normal": 5, "PinHead": 1})
    night.slide(1, {"RoundHead": 5}, outlines=False, fields=1)
    night.write()
    first, second = (json.loads(night.get(f"slides/slide-0/cells-00{n}.geojson")) for n in (1, 2))
    boxed = json.loads(night.get("slides/slide-1/cells-001.geojson"))
    assert next(iter(first)) == "warning"
    assert [file["field"] for file in (first, second)] == ["slide-0/field-0.png", "slide-0/field-1.png"]
    assert len(first["features"]) + len(second["features"]) == 6
    for feature in (*first["features"], *boxed["features"]):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring[0].tolist() == ring[-1].tolist()
        x, y = ring[:-1].T
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0
    assert boxed["features"][0]["geometry"]["coordinates"][0][0] == [70, 20]
    properties = second["features"][0]["properties"]
    assert properties["classification"] == {"name": "Normal", "color": [0, 135, 90]}
    assert {"name": "head_length_um", "value": 4.2} in properties["measurements"]
    assert first["features"][-1]["properties"]["classification"]["name"] == "Pin head"
    assert "confidence" in {measured["name"] for measured in properties["measurements"]}


def test_pictures_are_jpeg_with_the_warning_on_top(written: Written) -> None:
    for name in ("overlay-1.jpg", "sprites-1.jpg"):
        picture = Image.open(io.BytesIO(written.files[f"slides/slide-0/{name}"]))
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture)[4, 4].astype(int) - (255, 221, 120)).max() < 12


def test_images_of_single_cells_have_sprites_and_no_overlay(postgres: Postgres, night: Night) -> None:
    night.slide(0, {"Normal": 2})
    with postgres.as_owner(night.engine) as session:
        session.execute(text("update field set kind = 'crop'"))
    report = night.write()
    assert report["slides"][0]["files"] == [
        "slides/slide-0/cells-001.geojson",
        "slides/slide-0/cells-002.geojson",
        "slides/slide-0/sprites-1.jpg",
    ]
    assert report["notes"] == []


def test_only_the_latest_analysis_of_a_slide_counts(night: Night) -> None:
    night.slide(0, {"Normal": 10})
    with transaction(night.engine) as session:
        session.add(ModelRelease(id="r2", kind="trained", document=DOCUMENT))
        slide_id, fields = session.execute(
            text("select slide_id, array_agg(id order by id) from field group by slide_id")
        ).one()
    night.analysis(slide_id, fields, {"PinHead": 7}, release="r2", version=2)
    report = night.write()
    assert "warning" not in report
    assert [s["cells"] for s in report["slides"]] == [7]
    assert report["release"]["id"] == "r2"
    assert pq.read_table(io.BytesIO(night.get("cells.parquet"))).num_rows == 7


def test_cells_that_do_not_count_are_shown_and_counted_apart(night: Night) -> None:
    night.slide(0, {"Normal": 8, "AmorfHead": 192}, cut={"Normal": 5, "PinHead": 2})
    night.slide(1, {"Normal": 14, "TwistedTail": 186}, cut={"Normal": 1}, replicate=2)
    report = night.write()
    first, _ = report["slides"]
    assert (first["cells"], first["cells_not_counted"]) == (200, 7)
    assert first["not_counted_by_reason"] == {"cut_by_border": 7}
    assert (first["normal_forms"]["cells"], first["normal_forms"]["cells_total"]) == (8, 200)
    assert next(c for c in first["distribution"] if c["class_code"] == "pin_head")["cells"] == 0
    [specimen] = report["specimens"]
    assert (specimen["cells"], specimen["cells_not_counted"], specimen["normal_forms"]["cells"]) == (400, 8, 22)
    assert report["summary"]["not_counted_by_reason"] == {"cut_by_border": 8}
    with transaction(night.engine) as session:
        row = session.execute(
            text(
                "select cells, cells_total, cells_not_counted from reporting.specimen_distribution"
                " where class_code = 'normal'"
            )
        ).one()
        assert tuple(row) == (22, 400, 8)
    cells = pq.read_table(io.BytesIO(night.get("cells.parquet"))).to_pydict()
    cut = [reason for reason in cells["not_counted"] if reason]
    assert (len(cells["number"]), cut) == (408, ["cut_by_border"] * 8)
    assert sorted({share for share in cells["crop_inside_share"] if share}) == [0.625]
    outlined = json.loads(night.get("slides/slide-0/cells-001.geojson"))["features"]
    assert {f["properties"]["not_counted"] for f in outlined} == {None, "cut_by_border"}
    rows = list(csv.DictReader(io.StringIO(night.get("slides.csv").decode())))
    assert [(r["cells"], r["cells_not_counted"], r["not_counted_cut_by_border"], r["not_counted_not_a_sperm"])
            for r in rows] == [("200", "7", "7", "0"), ("200", "1", "1", "0")]  # fmt: skip


def test_a_report_of_before_such_cells_is_still_read(night: Night) -> None:
    night.slide(0, {"Normal": 8, "AmorfHead": 192})
    older = night.write()
    for part in (older["summary"], *older["slides"], *older["specimens"]):
        del part["cells_not_counted"], part["not_counted_by_reason"]
    del older["release"]["minimum_crop_inside_share"]
    assert Report.model_validate(older).slides[0].cells_not_counted == 0


def test_a_release_that_weighs_by_class_is_told_with_its_weight_of_each(night: Night) -> None:
    by_class = [round(0.05 * number, 2) for number in range(18)]
    with transaction(night.engine) as session:
        document = {**DOCUMENT, "fusion": {"alpha": by_class, "temperatures": {}}}
        session.get(ModelRelease, "r1").document = document
    night.slide(0, {"Normal": 3})
    assert night.write()["release"]["fusion_weight"] == by_class


def test_a_batch_without_any_analysis_or_cell_has_a_report(night: Night) -> None:
    empty = night.write()
    assert (empty["slides"], empty["release"]) == ([], None)
    night.slide(0, {}, state=SlideState.INSUFFICIENT, reason="too_few_cells")
    report = night.write()
    assert report["slides"][0]["distribution"] is None
    assert pq.read_table(io.BytesIO(night.get("cells.parquet"))).num_rows == 0


def test_a_report_never_speaks_of_disease(written: Written) -> None:
    words = json.dumps(written.report, ensure_ascii=False).replace(CENTILE_5_TEXT, "").lower()
    for verdict in ("infertil", "patholog", "teratozoospermic", "abnormal result", "diagnosed"):
        assert verdict not in words
