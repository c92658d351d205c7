"""The detector on real annotated fields, by the command that anyone can run.

The limits are those the project set itself; the fields of the part `holdout` were never looked at in tuning.
"""

import json

import pytest
from typer.testing import CliRunner

from services.cli.evaluate import commands
from tests.places import DATA

FIELDS = DATA / "stained_fields"

pytestmark = pytest.mark.skipif(
    not (FIELDS / "annotations.jsonl").is_file(), reason=f"no annotated fields in {FIELDS} (MORPHBATCH_DATA)"
)


@pytest.mark.parametrize(("part", "fields"), [("tuning", 73), ("holdout", 55)])
def test_heads_outlines_and_measures_reach_their_limits(part: str, fields: int) -> None:
    result = CliRunner().invoke(commands, ["evaluate", "detector", str(FIELDS), "--part", part, "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert list(figures) == [
        "fields", "cells", "recall", "precision", "split_errors", "mask_iou", "length_error", "width_error",
        "acrosome_error", "ms_per_field", "kinds",
    ]  # fmt: skip
    assert figures["fields"] == fields
    assert figures["recall"] >= 0.98
    assert figures["precision"] >= 0.97
    assert figures["split_errors"] <= 4
    assert figures["mask_iou"] >= 0.88
    assert figures["length_error"] <= 0.05
    assert figures["width_error"] <= 0.04
    assert figures["acrosome_error"] <= 0.08
    assert figures["kinds"]["usual"]["not_counted"] <= 0.01 * figures["kinds"]["usual"]["found"]
    # The limit is 40 ms on a core of its own; on a loaded machine two threads share a core.
    assert figures["ms_per_field"] <= 100


def test_an_unknown_part_is_refused() -> None:
    result = CliRunner().invoke(commands, ["evaluate", "detector", str(FIELDS), "--part", "test"])
    assert result.exit_code == 2
