"""A night on the whole real stack, through the command line alone, as a lab and an operator use it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec
from tests.conftest import Stack
from tests.places import DATA
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Two slides of three real fields where there are any, else drawn ones; and their µm/px."""
    real = sorted((DATA / "stained_fields").glob("*.jpg"))[:6]
    folder = tmp_path_factory.mktemp("delivery")
    if not real:
        write_batch(
            folder / "drawn", slides=2, fields_per_slide=3, seed=5, spec=BatchSpec(field=FieldSpec(um_per_px=0.1))
        )
        return folder / "drawn", 0.1
    for number, image in enumerate(real):
        slide = folder / f"slide-{number % 2 + 1}"
        slide.mkdir(exist_ok=True)
        (slide / image.name).symlink_to(image.resolve())
    return folder, 0.045


def test_a_folder_becomes_rows_pictures_and_a_report(
    stack: Stack, two_slides: tuple[Path, float], tmp_path: Path
) -> None:
    folder, um_per_px = two_slides
    submit = ("submit", str(folder), "--lab", "e2e", "--batch", "first-night", "--um-per-px", str(um_per_px))
    first = stack.run_cli(*submit, "--wait", timeout=300)
    assert first.returncode == 0, first.stderr

    report = json.loads(stack.run_cli("report", "first-night", "--json").stdout)
    assert next(iter(report)) == "warning"
    assert "not for clinical use" in report["warning"]
    assert report["state"] == "complete"
    assert [slide["state"] for slide in report["slides"]] == ["insufficient"] * 2  # three fields are no 200 cells
    assert all(slide["slide_id"] and slide["cells"] > 0 for slide in report["slides"])

    out = tmp_path / "results"
    assert stack.run_cli("report", "first-night", "--lab", "e2e", "--out", str(out)).returncode == 0
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"report.json", "slides.csv", "cells.parquet"} <= files
    for slide in report["slides"]:
        assert {f"slides/{slide['slide_id']}/{name}-1.jpg" for name in ("overlay", "sprites")} <= files
    cells = pq.read_table(out / "cells.parquet")
    counted = sum(slide["cells"] for slide in report["slides"])
    cut = sum(slide["not_counted_by_reason"].get("cut_by_border", 0) for slide in report["slides"])
    assert cells.num_rows == counted + sum(slide["cells_not_counted"] for slide in report["slides"])
    assert cells["not_counted"].to_pylist().count("cut_by_border") == cut > 0, "the shipped release leaves them out"
    stored = json.loads((out / "report.json").read_text())
    for slide, live in zip(stored["slides"], report["slides"], strict=True):
        assert {name: slide[name] for name in ("slide_id", "state", "cells", "normal_forms", "fields")} == {
            name: live[name] for name in ("slide_id", "state", "cells", "normal_forms", "fields")
        }

    watched = json.loads(stack.run_cli("watch", "first-night", "--json").stdout)
    assert (watched["state"], watched["slides"]["insufficient"], watched["cells"]) == ("complete", 2, counted)

    again = stack.run_cli(*submit, "--wait", timeout=60)
    assert again.returncode == 0, again.stderr
    assert json.loads(stack.run_cli("report", "first-night", "--json").stdout)["slides"] == report["slides"]


def test_a_batch_with_a_broken_field_ends_with_errors_and_says_what_to_do(stack: Stack, tmp_path: Path) -> None:
    write_batch(
        tmp_path / "night",
        slides=2,
        fields_per_slide=1,
        seed=9,
        spec=BatchSpec(field=FieldSpec(um_per_px=0.12, cells=4)),
    )
    (tmp_path / "night" / "manifest.json").unlink()
    (tmp_path / "night" / "slide-02" / "field-002.jpg").write_bytes(b"no image at all")
    ended = stack.run_cli(
        "submit",
        str(tmp_path / "night"),
        "--lab",
        "e2e",
        "--batch",
        "broken",
        "--um-per-px",
        "0.12",
        "--wait",
        timeout=120,
    )
    assert ended.returncode == 1
    report = json.loads(stack.run_cli("report", "broken", "--json").stdout)
    assert report["state"] == "complete_with_errors"
    assert {slide["slide_id"]: slide["state"] for slide in report["slides"]} == {
        "slide-01": "insufficient",
        "slide-02": "quarantined",
    }
    evening = (datetime.now(UTC) - timedelta(hours=12)).date()
    night = stack.run_cli("night", "--date", str(evening))
    assert night.returncode == 1
    assert "missing e2e/broken: 1 slide quarantined" in night.stdout
    assert "morphbatch requeue broken --lab e2e" in night.stdout
    assert "e2e/broken" in json.loads(stack.run_cli("night", "--date", str(evening), "--json").stdout)["missing"]
    requeued = json.loads(stack.run_cli("requeue", "broken", "--json").stdout)
    assert requeued["requeued"] == ["slide-02"]
    wait_until(
        lambda: json.loads(stack.run_cli("watch", "broken", "--json").stdout)["state"] == "complete_with_errors",
        what="quarantined again",
    )


def test_an_unknown_batch_is_named_with_those_there_are(stack: Stack) -> None:
    asked = stack.run_cli("report", "no-such-night")
    assert asked.returncode == 2
    assert "no-such-night" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_the_doctor_finds_a_running_stack_healthy(stack: Stack) -> None:
    visit = stack.run_cli("doctor", "--json")
    assert visit.returncode == 0, visit.stdout + visit.stderr


def test_cells_of_a_stain_that_was_never_trained_on_get_the_classes_they_were_drawn_with(
    stack: Stack, tmp_path: Path
) -> None:
    how = ("--slides", "2", "--fields", "6", "--cells", "16", "--balanced", "--stain", "papanicolaou", "--blur", "0.25")
    drawn = stack.run_cli("smears", str(tmp_path / "smears"), *how, "--seed", "71", timeout=120)
    assert drawn.returncode == 0, drawn.stderr
    asked = stack.run_cli("evaluate", "service", str(tmp_path / "smears"), "--json", timeout=300)
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert found["not_counted"] > 0, "the border cuts some"
    # A few of the double heads are found as two.
    assert found["matched"] + found["not_counted"] >= 0.92 * found["cells"] > 130
    assert set(found["macro_f1"]) == set(found["accuracy"]) == {"efficientnetv2_s", "resnetv2_50", "fused"}
    assert found["macro_f1"]["fused"] > 0.8
