"""Rates: the shipped ones, and those of the benchmarks' documents."""

import json
from pathlib import Path

import pytest

from services.capacity.errors import RatesRefused
from services.capacity.nights import Slide
from services.capacity.rates import SHIPPED, Cost, Rates

MACHINE = {"processor": "a processor", "gpus": [], "cores": 2}
SPREAD = {"median": 50.0, "min": 40.0, "max": 60.0, "runs": [40.0, 60.0]}
FEED = {
    "kind": "feed", "machine": MACHINE, "cells_per_field": 20.0,
    "cpu_ms_per_field": {"all": {"median": 60.0}, "detect": {"median": 20.0}, "crop": {"median": 4.0},
                         "decode": {"median": 5.0}},
}  # fmt: skip
CORES = {
    "postgres": 0.8,
    "redis": 0.1,
    "s3": 0.5,
    "triton": 10.0,
    "control": 0.3,
    "beat": 0.2,
    "api": 0.2,
    "worker": 5.0,
}
E2E = {
    "kind": "e2e", "machine": MACHINE, "fields": {"count": 100}, "slides": 8,
    "releases": [{"crops": 1000, "service": {"cores_s": [CORES, CORES], "cpu_s": [{"detect": 2.0, "decode": 1.0}]}}],
}  # fmt: skip
ENSEMBLE = {"kind": "ensemble", "machine": MACHINE, "ensemble": {"crops_per_s": SPREAD}}
REAPPLY = {"machine": MACHINE, "written_of_one_core_cells_per_s": SPREAD}


def measured(folder: Path, document: object) -> Rates:
    path = folder / "bench.json"
    path.write_text(json.dumps(document))
    return Rates.read().measured(path)


def test_every_shipped_rate_says_who_measured_it() -> None:
    rates = Rates.read().model_dump()
    assert all(cost["source"].strip() for name, cost in rates.items() if name != "cell_bytes")
    assert Rates.read().worker.of(Slide(0, 0, fields=20, cells=240, megabytes=10)) == pytest.approx(1.092, abs=0.5)


def test_a_cost_is_of_slides_fields_cells_and_megabytes() -> None:
    cost = Cost(slide=1, field=0.1, cell=0.01, megabyte=0.001, source="")
    assert cost.of(Slide(0, 0, fields=10, cells=100, megabytes=1000)) == pytest.approx(4)


def test_what_the_benchmarks_measure(tmp_path: Path) -> None:
    feed = measured(tmp_path, FEED)
    assert (feed.worker.field, feed.worker.cell) == (pytest.approx(0.036), pytest.approx(0.0012))
    assert feed.postgres == Rates.read().postgres
    assert "bench.json: 2 cores, a processor" in feed.worker.source
    e2e = measured(tmp_path, E2E)
    assert (e2e.worker.field, e2e.worker.cell) == (pytest.approx(0.03), pytest.approx(0.002))
    assert e2e.triton_cpu.cell == pytest.approx(0.01)
    assert (e2e.postgres.slide, e2e.store.field, e2e.control.slide) == pytest.approx((0.1, 0.005, 0.1))
    assert measured(tmp_path, ENSEMBLE).triton_cpu.cell == pytest.approx(2 / 50)
    on_gpu = {**ENSEMBLE, "machine": {**MACHINE, "gpus": ["a GPU"]}}
    assert measured(tmp_path, on_gpu).triton_gpu.cell == pytest.approx(1 / 50)
    assert measured(tmp_path, REAPPLY).postgres.cell == pytest.approx(1 / 50)


@pytest.mark.parametrize(
    "document",
    [{}, {"kind": "feed"}, {**FEED, "cells_per_field": 0}, {**FEED, "cpu_ms_per_field": []}, {**E2E, "releases": []},
     {**E2E, "kind": "other"}, {**REAPPLY, "written_of_one_core_cells_per_s": {"median": 0}},
     {**FEED, "cpu_ms_per_field": {"all": {"median": -5}}}, {**FEED, "machine": 1}],
)  # fmt: skip
def test_what_is_not_a_benchmarks_document_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(RatesRefused, match=r"bench\.json"):
        measured(tmp_path, document)


def test_a_file_of_rates_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(SHIPPED.read_text(encoding="utf-8").replace("[postgres]", "[postgress]"), encoding="utf-8")
    with pytest.raises(RatesRefused, match="postgress"):
        Rates.read(path)
    path.write_text("[worker]\nfield = -1\nsource = 'x'\n")
    with pytest.raises(RatesRefused, match="worker"):
        Rates.read(path)
