"""Drawn smears: the same seed, the same bytes; truth that lies where the picture is dark; classes by their measures."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.intake.validation import parse_manifest
from services.smears.batch import BatchSpec, FolderNotEmpty, write_batch
from services.smears.cells import CellShape, shape_cell
from services.smears.doubtful import Doubtful
from services.smears.field import FieldSpec, draw_cell_crop, draw_field
from services.smears.head_shapes import HeadShape
from services.smears.optics import Fault
from services.smears.painting import Pose
from services.smears.stains import Stain
from services.taxonomy import CLASS_NAMES, CLASSES

SMALL = FieldSpec(480, 400, cells=4)


def cell(name: str, seed: int) -> CellShape:
    return shape_cell(np.random.default_rng(seed), CLASS_NAMES.index(name))


def sides(head: HeadShape) -> tuple[float, float]:
    x, y = head.outline.max(axis=0) - head.outline.min(axis=0)
    return float(x), float(y)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("stain", Stain)
def test_truth_outlines_what_is_stained(stain: Stain) -> None:
    spec = FieldSpec(640, 512, stain=stain, classes=tuple(range(0, 18, 3)), touching=0.0, debris=0.0)
    field = draw_field(np.random.default_rng(5), spec)
    green = field.pixels[..., 1].astype(float)
    glass = np.median(green)
    whole = [c for c in field.truth.cells if c.whole]
    assert len(whole) >= 4
    for found in whole:
        head = np.zeros(green.shape, np.uint8)
        for name in ("acrosome", "nucleus", "vacuole"):
            for polygon in found.parts.get(name, ()):
                cv2.fillPoly(head, [np.round(np.array(polygon) - 0.5).astype(np.int32)], 1)
        ys, xs = np.nonzero(head)
        assert np.allclose((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), found.head_box, atol=1.6)
        assert head.sum() * spec.um_per_px**2 == pytest.approx(found.area_um2, rel=0.12)
        near = cv2.dilate(head, np.ones((15, 15), np.uint8)) > 0
        stained = near & (green < 0.75 * glass)
        assert (stained & (head > 0)).sum() > 0.82 * (stained | (head > 0)).sum(), CLASS_NAMES[found.class_index]


def test_sizes_do_not_depend_on_the_scale() -> None:
    def lengths(um_per_px: float) -> list[float]:
        pixels = round(60 / um_per_px)
        spec = FieldSpec(pixels, pixels, um_per_px, classes=(7, 7, 7, 7), touching=0.0, debris=0.0)
        return [c.length_um for c in draw_field(np.random.default_rng(2), spec).truth.cells if c.whole]

    fine, coarse = lengths(0.045), lengths(0.18)
    assert len(fine) == len(coarse) >= 2
    assert all(3.5 <= length <= 4.9 for length in fine + coarse)


def test_a_head_cut_by_the_border_is_not_whole() -> None:
    cut = [
        found
        for seed in range(12)
        for found in draw_field(np.random.default_rng(seed), FieldSpec(200, 200, cells=6)).truth.cells
        if not found.whole
    ]
    assert cut
    for found in cut:
        x0, y0, x1, y1 = found.head_box
        assert min(x0, y0) < 1.0 or max(x1, y1) > 199.0
        assert min(found.head_box) >= 0.0
        assert max(found.head_box) <= 200.0


def test_an_eyepiece_hides_what_lies_outside_of_it() -> None:
    spec = FieldSpec(700, 500, cells=25, fault=Fault.VIGNETTE)
    field = draw_field(np.random.default_rng(3), spec)
    assert field.pixels[:5, :5].max() < 12
    for found in field.truth.cells:
        x0, y0, x1, y1 = (int(v) for v in found.head_box)
        assert field.pixels[y0:y1, x0:x1].max() > 60
    assert len(field.truth.cells) < 25


def test_blur_faults_and_debris_show() -> None:
    def green(**changes: object) -> np.ndarray:
        spec = FieldSpec(400, 320, **{"cells": 4, "blur_um": 0.09, **changes})  # type: ignore[arg-type]
        return draw_field(np.random.default_rng(8), spec).pixels[..., 1].astype(np.float64)

    def sharpness(image: np.ndarray) -> float:
        return float(np.percentile(np.abs(cv2.Laplacian(cv2.GaussianBlur(image, (0, 0), 1.2), cv2.CV_64F)), 99.5))

    assert sharpness(green(blur_um=0.6)) < 0.5 * sharpness(green())
    assert sharpness(green(fault=Fault.DEFOCUS)) < 0.5 * sharpness(green())
    assert np.median(green(fault=Fault.DARK)) < 0.6 * np.median(green())
    assert np.median(green(fault=Fault.BRIGHT)) >= 254
    spec = FieldSpec(400, 320, cells=0, debris=0.0)
    assert draw_field(np.random.default_rng(1), spec).truth.debris == 0
    assert draw_field(np.random.default_rng(1), FieldSpec(400, 320, cells=0, bacteria=10)).truth.debris >= 10


@pytest.mark.parametrize("seed", range(12))
def test_classes_keep_to_their_definitions(seed: int) -> None:
    for name in CLASS_NAMES:
        shape = cell(name, seed)
        if name not in (
            "AmorfHead",
            "DoubleHead",
            "PinHead",
            "PyriformHead",
            "RoundHead",
            "TaperedHead",
            "NarrowAcrosome",
        ):
            length, width = sides(shape.heads[0])
            assert 3.4 < length < 5.0, name
            assert 1.25 < length / width < 1.8, name
        assert len(shape.heads) == (2 if name == "DoubleHead" else 1)
        assert len(shape.flagella) == (2 if name == "DoubleTail" else 1)
    assert np.divide(*sides(cell("TaperedHead", seed).heads[0])) > 1.9
    assert 0.85 < np.divide(*sides(cell("RoundHead", seed).heads[0])) < 1.25
    assert cell("PinHead", seed).heads[0].area < 5.2 < 5.6 < cell("Normal", seed).heads[0].area
    assert cell("NarrowAcrosome", seed).heads[0].acrosome_share < 0.25 < cell("Normal", seed).heads[0].acrosome_share
    vacuolated = cell("VacuolatedHead", seed).heads[0]
    assert (
        sum(np.pi * v.rx * v.ry for v in vacuolated.vacuoles) > 0.07 * vacuolated.area or len(vacuolated.vacuoles) > 2
    )
    necks = {n: cell(n, seed).flagella[0].midpiece.widths.max() for n in ("ThickNeck", "ThinNeck", "Normal")}
    assert necks["ThinNeck"] < 0.4 < necks["Normal"] < 0.9 < necks["ThickNeck"]


@pytest.mark.parametrize("seed", range(12))
def test_tail_classes_can_be_told_within_a_crop(seed: int) -> None:
    def tail(name: str) -> np.ndarray:
        return cell(name, seed).flagella[0].tail.points

    def in_crop(points: np.ndarray) -> int:
        return int((np.abs(points) < 12.0).all(axis=1).sum())

    def turning(points: np.ndarray) -> float:
        steps = np.diff(points[np.hypot(*points.T) < 12.0], axis=0)
        headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        return float(np.abs(headings - headings[0]).max())

    assert np.hypot(*tail("ShortTail").T).max() < 12.0 < np.hypot(*tail("Normal").T).max()
    assert turning(tail("CurlyTail")) > 2.6 * np.pi
    assert turning(tail("Normal")) < 2.2
    assert tail("LongTail")[:, 0].max() > 0.0 > tail("LongTail")[:20, 0].max()  # it comes back past the head
    assert in_crop(tail("LongTail")) > 1.3 * in_crop(tail("Normal"))
    assert (
        np.abs(np.diff(tail("TwistedTail"), n=2, axis=0)).max() > 3 * np.abs(np.diff(tail("Normal"), n=2, axis=0)).max()
    )


def test_a_pose_keeps_sizes_and_mirrors() -> None:
    points = np.array([[1.0, 0.0], [0.0, 2.0]])
    placed = Pose(5.0, 7.0, np.pi / 2, mirrored=True).place(points)
    assert np.allclose(placed, [[5.0, 8.0], [7.0, 7.0]])


def test_a_crop_that_reaches_over_the_border_is_filled_with_background() -> None:
    crop = draw_cell_crop(np.random.default_rng(0), 7, field_um=(6.4, 200.0), density=0.0)
    left, right = crop[:, :60], crop[:, -60:]
    assert np.ptp(left.reshape(-1, 3), axis=0).max() == 0
    assert np.array_equal(left[0, 0], right[0, 0])
    assert np.ptp(crop[:, 90:102].reshape(-1, 3), axis=0).max() > 40


@pytest.mark.parametrize("class_index", [c.index for c in CLASSES])
def test_a_crop_shows_its_cell_in_the_middle(class_index: int) -> None:
    crop = draw_cell_crop(np.random.default_rng(class_index), class_index, density=0.0, size_px=192)
    assert crop.shape == (192, 192, 3)
    assert crop.dtype == np.uint8
    dark = crop[..., 1] < 0.75 * np.median(crop[..., 1])
    assert dark[86:106, 86:106].mean() > 0.3
    again = draw_cell_crop(np.random.default_rng(class_index), class_index, density=0.0, size_px=192)
    assert np.array_equal(crop, again)


def test_a_batch_is_the_same_for_the_same_seed_and_is_a_valid_delivery(tmp_path: Path) -> None:
    spec = BatchSpec(lab="lab-a", batch_id="night-1", balanced=True, faults=0.5, field=SMALL)
    seen: list[tuple[int, int]] = []
    path = write_batch(
        tmp_path / "a", slides=3, fields_per_slide=2, seed=9, spec=spec, on_field=lambda *done: seen.append(done)
    )
    write_batch(tmp_path / "b", slides=3, fields_per_slide=2, seed=9, spec=spec)
    write_batch(tmp_path / "c", slides=3, fields_per_slide=2, seed=10, spec=spec)
    files = digests(tmp_path / "a")
    assert files == digests(tmp_path / "b")
    assert files != digests(tmp_path / "c")
    assert seen[-1] == (6, 6)

    manifest = parse_manifest(path.read_bytes(), lab="lab-a", batch_id="night-1")
    assert {f.key: f.sha256 for s in manifest.slides for f in s.fields} == {
        name: digest for name, digest in files.items() if name.endswith(".jpg")
    }
    assert [s.replicate for s in manifest.slides] == [1, 2, 1]
    assert manifest.slides[0].specimen == manifest.slides[1].specimen != manifest.slides[2].specimen
    assert manifest.slides[0].stain == manifest.slides[1].stain != manifest.slides[2].stain

    lines = [json.loads(line) for line in (tmp_path / "a" / "truth.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == [f.key for s in manifest.slides for f in s.fields]
    assert len({c["class"] for line in lines for c in line["cells"]}) >= 12
    for line in lines:
        pixels = cv2.imread(str(tmp_path / "a" / line["image"]))
        assert pixels.shape == (line["height"], line["width"], 3)
        for found in line["cells"]:
            assert CLASS_NAMES[found["class_index"]] == found["class"]


def test_nothing_of_others_is_overwritten(tmp_path: Path) -> None:
    spec = BatchSpec(field=FieldSpec(128, 128, cells=1))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderNotEmpty, match="not empty"):
        write_batch(tmp_path, slides=1, fields_per_slide=1, seed=1, spec=spec, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]

    out = tmp_path / "batch"
    write_batch(out, slides=2, fields_per_slide=2, seed=1, spec=spec)
    with pytest.raises(FolderNotEmpty, match="--force"):
        write_batch(out, slides=1, fields_per_slide=1, seed=1, spec=spec)
    write_batch(out, slides=1, fields_per_slide=1, seed=1, spec=spec, force=True)
    assert sorted(digests(out)) == ["manifest.json", "slide-01/field-001.jpg", "truth.jsonl"]


def test_the_command_writes_a_batch_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "night"
    arguments = ["smears", str(out), "--slides", "1", "--fields", "1", "--cells", "2", "--seed", "4"]
    small = ["--width", "256", "--height", "200", "--stain", "shorr", "--um-per-px", "0.12"]
    done = CliRunner().invoke(app, [*arguments, *small])
    assert done.exit_code == 0, done.output
    assert "night" in done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["lab"], manifest["batch_id"]) == ("demo-lab", "smears-4")
    assert manifest["slides"][0]["stain"] == "shorr"
    assert manifest["slides"][0]["um_per_px"] == 0.12
    assert not list(out.rglob("*.part"))
    assert CliRunner().invoke(app, [*arguments, "--stain", "violet"]).exit_code == 2


def test_the_truth_of_faulty_fields_can_be_written_too(tmp_path: Path) -> None:
    spec = BatchSpec(faults=1.0, field=FieldSpec(width_px=500, height_px=400, um_per_px=0.15, cells=4))
    write_batch(tmp_path / "night", slides=2, fields_per_slide=5, seed=3, spec=spec)
    truths = [json.loads(line) for line in (tmp_path / "night" / "truth.jsonl").read_text().splitlines()]
    assert len({truth["fault"] for truth in truths}) >= 4
    assert all(truth["fault"] != "none" for truth in truths)


def test_doubtful_things_come_only_where_they_are_asked_for_and_are_in_the_truth() -> None:
    plain = draw_field(np.random.default_rng(4), FieldSpec(900, 700, cells=3))
    assert {cell.kind for cell in plain.truth.cells} == {"usual"}
    assert not plain.truth.objects
    field = draw_field(np.random.default_rng(4), FieldSpec(900, 700, cells=3, doubtful=tuple(Doubtful)))
    assert len(field.truth.cells) >= len(plain.truth.cells) + 3
    sperm = {Doubtful.PIN_HEAD, Doubtful.DOUBLE_HEAD, Doubtful.TOUCHING, Doubtful.TAIL_ACROSS}
    assert {cell.kind for cell in field.truth.cells} <= {"usual", *sperm}
    assert {item.kind for item in field.truth.objects} == set(Doubtful) - sperm
    glass = np.median(field.pixels[..., 1])
    for item in (item for item in field.truth.objects if item.whole):
        x0, y0, x1, y1 = (round(v) for v in item.box)
        assert field.pixels[y0:y1, x0:x1, 1].min() < 0.75 * glass
    pins = [cell for cell in field.truth.cells if cell.kind == "pin_head"]
    assert all(cell.area_um2 < 3.8 and cell.class_index == CLASS_NAMES.index("PinHead") for cell in pins)
    line = field.truth.as_json("a.jpg")
    assert {"kind", "box", "whole"} == set(line["objects"][0])
