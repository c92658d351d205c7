"""What a real night exports: every alert and every panel asks for what is there, and the numbers are the night's."""

import json
import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.local.installation import load_installation
from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec
from tests.conftest import Stack
from tests.waiting import wait_until
from tests.watching import expressions, labels_of, metrics_of

# A night in which nothing goes wrong does not export them: their series begin with the first of their kind.
OF_A_BAD_NIGHT = {
    "morphbatch_quarantined_slides": {"reason"},
    "morphbatch_waiting_slides": {"reason"},
    "morphbatch_slides_given_back_total": {"reason"},
}

Scraped = Mapping[str, list[tuple[dict[str, str], float]]]


def scrape(stack: Stack) -> Scraped:
    """What the four servers answer Prometheus: each sample's labels and value, by its name."""
    installation = load_installation(stack.home)
    assert installation
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for server in ("worker_metrics", "control_metrics", "triton_metrics", "api"):
        with urllib.request.urlopen(f"http://127.0.0.1:{installation.ports[server]}/metrics") as answer:
            exposition = answer.read().decode()
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                # The parser gives each counter the ending that Triton's lack.
                name = sample.name if f"\n{sample.name}" in exposition else sample.name.removesuffix("_total")
                found.setdefault(name, []).append((sample.labels, sample.value))
    return found


@pytest.fixture(scope="module")
def night(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scraped, Scraped, int]:
    """What was exported before a small night and after it, and its cells."""
    folder = tmp_path_factory.mktemp("watched")
    spec = BatchSpec(lab="watched", batch_id="watched", field=FieldSpec(um_per_px=0.12, cells=4))
    write_batch(folder, slides=2, fields_per_slide=1, seed=11, spec=spec)
    before = scrape(stack)
    done = stack.run_cli("submit", str(folder), "--wait", timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(stack.run_cli("report", "watched", "--json").stdout)["summary"]
    cells = summary["cells"] + summary["cells_not_counted"]
    wait_until(
        lambda: (
            total(scrape(stack), "morphbatch_batches_closed_total") > total(before, "morphbatch_batches_closed_total")
        )
    )
    return before, scrape(stack), cells


def total(scraped: Scraped, name: str, **labels: str) -> float:
    """The sum of what all processes count."""
    return sum(value for of, value in scraped.get(name, ()) if labels.items() <= of.items())


@pytest.mark.parametrize(("whose", "expression"), [pytest.param(*pair, id=pair[0]) for pair in expressions()])
def test_it_asks_for_what_is_exported(night: tuple[Scraped, Scraped, int], whose: str, expression: str) -> None:
    scraped = night[1]
    names = metrics_of(expression)
    assert names, "it asks for nothing of ours"
    assert names - scraped.keys() - OF_A_BAD_NIGHT.keys() == set()
    for name, label in labels_of(expression):
        known = {key for labels, _ in scraped.get(name, ()) for key in labels} | OF_A_BAD_NIGHT.get(name, set())
        assert label in known, f"{name} has labels {sorted(known)}"


def test_the_numbers_are_the_nights(night: tuple[Scraped, Scraped, int]) -> None:
    before, after, cells = night

    def grew(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert cells > 0
    assert grew("morphbatch_cells_classified_total") == cells
    assert grew("morphbatch_attempts_total", outcome="insufficient") == 2
    assert grew("morphbatch_slide_seconds_count") == 2
    assert grew("morphbatch_stage_seconds_count", stage="decode") == 2
    assert (
        grew("morphbatch_triton_requests_total", outcome="ok") == grew("morphbatch_triton_request_seconds_count") >= 2
    )
    # At least: a message may find no slide that waits.
    assert grew("morphbatch_tasks_ended_total", task="morphbatch.analyse_slide", how="complete") >= 2
    assert grew("morphbatch_batches_closed_total", state="complete") == 1
    assert grew("morphbatch_manifests_total", outcome="new") == 1
    assert grew("morphbatch_slides", state="insufficient") == 2
    assert total(after, "morphbatch_sweep_last_success_timestamp_seconds", sweep="database") > 0
