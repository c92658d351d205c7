"""The score of the detector, on truth made up so that every figure has one right answer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.evaluation.annotations import AnnotationsUnreadable, Part, part_of, read_annotations
from services.evaluation.detector import KindFigures, figures, match_boxes, score_field, split_errors
from services.evaluation.pictures import write_picture
from services.imaging.types import RGB, Box, FoundHeads, Head, Morphometry, NotCounted, RejectedObject

FIELD = np.full((200, 300, 3), 230, np.uint8)


def cell(x0: int, y0: int, x1: int, y1: int, acrosome: float = 0.5) -> dict[str, Any]:
    """A rectangular head, its right part the acrosome."""
    middle = x1 - (x1 - x0) * acrosome

    def rectangle(a: float, b: float) -> list[list[float]]:
        return [[a, y0], [b, y0], [b, y1], [a, y1]]

    return {
        "id": x0,
        "head_box": [x0, y0, x1, y1],
        "parts": {"nucleus": [rectangle(x0, middle)], "acrosome": [rectangle(middle, x1)], "tail": []},
    }


def head(x0: int, y0: int, x1: int, y1: int, **measures: float) -> Head:
    outline = np.array([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], np.int32)
    return Head(Box(x0, y0, x1, y1), outline, Morphometry(**measures))


def annotate(folder: Path, *fields: list[dict[str, Any]]) -> Path:
    lines = [json.dumps({"image": f"{k}.jpg", "cells": cells}) for k, cells in enumerate(fields)]
    (folder / "annotations.jsonl").write_text("\n".join(lines))
    return folder


def scored(folder: Path, cells: list[dict[str, Any]], *heads: Head, cut: tuple[Box, ...] = ()) -> Any:
    found = FoundHeads(heads, tuple(RejectedObject(box, "border") for box in cut))

    def detect(_: Path) -> tuple[RGB, FoundHeads]:
        return FIELD, found

    return score_field(read_annotations(annotate(folder, cells))[0], detect)


def test_hits_misses_and_false_finds(tmp_path: Path) -> None:
    field = scored(
        tmp_path, [cell(10, 10, 50, 40), cell(100, 10, 140, 40)], head(12, 11, 52, 41), head(200, 90, 240, 120)
    )
    assert [c.id for c, _ in field.pairs] == [10]
    assert [c.id for c in field.missed] == [100]
    assert [h.box.x0 for h in field.false] == [200]
    result = figures([field], 0.1)
    assert (result.fields, result.cells, result.recall, result.precision) == (1, 2, 0.5, 0.5)


def test_a_head_reported_as_cut_by_the_border_is_recalled_and_neither_right_nor_wrong_for_precision(
    tmp_path: Path,
) -> None:
    field = scored(
        tmp_path, [cell(0, 10, 30, 40), cell(100, 10, 140, 40)], head(100, 10, 140, 40),
        cut=(Box(0, 11, 30, 40), Box(270, 0, 300, 30)),
    )  # fmt: skip
    result = figures([field], 0.1)
    assert (result.recall, result.precision) == (1.0, 1.0)


def test_measures_are_compared_with_the_outlined_parts(tmp_path: Path) -> None:
    field = scored(
        tmp_path,
        [cell(10, 10, 50, 40, acrosome=0.5)],
        head(10, 10, 50, 40, length_um=4.4, width_um=2.7, acrosome_share=0.4),
    )
    result = figures([field], 0.1)
    assert result.mask_iou == pytest.approx(1.0, abs=0.06)
    assert result.length_error == pytest.approx(0.1, abs=1e-3)
    assert result.width_error == pytest.approx(0.1, abs=1e-3)
    assert result.acrosome_error == pytest.approx(0.1, abs=0.02)


def test_a_measure_that_is_none_is_not_scored(tmp_path: Path) -> None:
    result = figures([scored(tmp_path, [cell(10, 10, 50, 40)], head(10, 10, 50, 40))], 0.1)
    assert result.acrosome_error is None
    assert result.length_error is None


def test_joined_and_cut_heads_are_split_errors(tmp_path: Path) -> None:
    joined = scored(tmp_path, [cell(10, 10, 40, 40), cell(40, 10, 70, 40)], head(10, 10, 70, 40))
    cut = scored(tmp_path, [cell(10, 10, 70, 40)], head(10, 10, 40, 40), head(40, 10, 70, 40))
    right = scored(tmp_path, [cell(10, 10, 40, 40)], head(10, 10, 40, 40))
    assert [split_errors(f) for f in (joined, cut, right)] == [1, 1, 0]


def test_the_best_pair_is_matched_first_and_each_box_once() -> None:
    true = [(0, 0, 10, 10), (4, 0, 14, 10)]
    assert match_boxes(true, [(1, 0, 11, 10)]) == {0: 0}
    assert match_boxes(true, [(3, 0, 13, 10), (0, 0, 10, 10)]) == {0: 1, 1: 0}
    assert match_boxes(true, [(9, 0, 19, 10)]) == {}


def test_the_parts_of_the_fields_are_fixed_by_their_names(tmp_path: Path) -> None:
    annotate(tmp_path, *([cell(1, 1, 9, 9)] for _ in range(50)))
    tuning, holdout = ({f.path.name for f in read_annotations(tmp_path, p)} for p in (Part.TUNING, Part.HOLDOUT))
    assert tuning.isdisjoint(holdout)
    assert len(tuning | holdout) == 50
    assert part_of("Image__2022-10-29__06-09-26.jpg") is Part.TUNING


@pytest.mark.parametrize("text", ["{", '{"image": "a.jpg"}', '{"image": "a.jpg", "cells": [{"id": 1}]}', ""])
def test_annotations_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations.jsonl").write_text(text)
    with pytest.raises(AnnotationsUnreadable):
        read_annotations(tmp_path)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsUnreadable, match=r"annotations\.jsonl"):
        read_annotations(tmp_path)


def test_a_picture_shows_what_was_missed_and_found(tmp_path: Path) -> None:
    field = scored(tmp_path, [cell(10, 10, 50, 40)], head(100, 90, 140, 120))
    target = write_picture(field, tmp_path / "pictures")
    assert target.name == "0.jpg"
    assert target.stat().st_size > 1000
    assert [p.name for p in target.parent.iterdir()] == ["0.jpg"]


def test_what_became_of_doubtful_cells_and_objects_is_told_by_kind(tmp_path: Path) -> None:
    double, pin, cut = cell(10, 10, 60, 40), cell(100, 10, 120, 30), cell(0, 100, 20, 120)
    line = {
        "image": "0.jpg",
        "cells": [
            double | {"kind": "double_head", "whole": True},
            pin | {"kind": "pin_head", "whole": True},
            cut | {"kind": "pin_head", "whole": False},
        ],
        "objects": [
            {"kind": "cocci", "box": [200, 100, 230, 130], "whole": True},
            {"kind": "white_cell", "box": [240, 100, 299, 160], "whole": True},
        ],
    }
    (tmp_path / "truth.jsonl").write_text(json.dumps(line))
    heads = (head(10, 10, 33, 40), head(37, 10, 60, 40), head(100, 10, 120, 30), head(250, 110, 270, 130))
    heads = (*heads[:3], replace(heads[3], not_counted=NotCounted.NOT_A_SPERM))
    field = score_field(read_annotations(tmp_path)[0], lambda _: (FIELD, FoundHeads(heads, ())))
    assert figures([field], 0.1).kinds == {
        "double_head": KindFigures(there=1, found=0, in_two=1),
        "pin_head": KindFigures(there=1, found=1),
        "cocci": KindFigures(there=1, found=0),
        "white_cell": KindFigures(there=1, found=1, not_counted=1),
    }
