"""The benchmarks run and add up; how fast they are is for `make bench`, on a machine with nothing else to do."""

from pathlib import Path

import pytest

from services.benchmark.deliveries import NoFields, drawn_fields, fields_of, lay_out
from services.benchmark.feed import measure_feed
from services.benchmark.spread import spread
from services.local.triton import find_environment

CELLS = 6


def test_a_figure_comes_with_its_spread() -> None:
    assert spread([2.0, 1.0, 4.0]) == {"median": 2.0, "min": 1.0, "max": 4.0, "runs": [2.0, 1.0, 4.0]}


def test_a_folder_without_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoFields):
        fields_of(tmp_path, 0.1, 5)


def test_fields_are_dealt_to_slides_and_drawn_once(tmp_path: Path) -> None:
    fields = drawn_fields(tmp_path, 3, CELLS)
    drawn_at = fields.paths[0].stat().st_mtime_ns
    again = drawn_fields(tmp_path, 3, CELLS).repeated(5)
    folder = lay_out(again.paths, tmp_path / "delivery", 2)
    assert {slide.name: len(list(slide.iterdir())) for slide in folder.iterdir()} == {"slide-01": 3, "slide-02": 2}
    assert fields.paths[0].stat().st_mtime_ns == drawn_at


def test_the_feed_is_measured_on_the_real_stack(tmp_path: Path) -> None:
    find_environment(None)
    fields = drawn_fields(tmp_path, 4, CELLS)
    result = measure_feed(tmp_path / "stack", fields, repeats=1)
    assert result["fields"]["count"] == 4
    assert result["cells_per_field"] >= CELLS / 2
    assert result["crops_per_s"]["median"] > 0
    per_field = result["cpu_ms_per_field"]
    stages = {"fetch", "decode", "quality", "detect", "crop", "rows", "write"}
    assert stages < per_field.keys()
    assert sum(per_field[stage]["median"] for stage in stages) <= per_field["all"]["median"]
