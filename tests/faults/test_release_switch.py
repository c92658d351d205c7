"""Another release is activated while a batch runs: every cell once, and each analysis under one release."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, TextClause, text

from services.releases.fusion import fuse
from services.releases.schema import MEMBERS, read_release, verify_release
from tests.conftest import Stack
from tests.drawn_night import Night
from tests.faults.conftest import cli
from tests.waiting import wait_until


@pytest.fixture
def grown(stack: Stack, engine: Engine) -> Iterator[str]:
    """The active release; it is again after the test."""
    with engine.connect() as connection:
        release_id: str = connection.execute(text("select id from model_release where active")).scalar_one()
    yield release_id
    cli(stack, "release", "activate", release_id)


@pytest.fixture
def other(stack: Stack, grown: str, tmp_path: Path) -> str:
    """The same networks with another fusion and on wider crops, published."""
    fusion = tmp_path / "fusion.json"
    fusion.write_text(json.dumps({"alpha": 0.9, "temperatures": dict.fromkeys(MEMBERS, 0.25)}))
    folder = tmp_path / "derived"
    arguments = ("derive", grown, "--fusion", str(fusion), "--out", str(folder), "--json")
    named = json.loads(cli(stack, "release", *arguments))["id"]
    derived = verify_release(folder)
    assert derived.id == named != grown
    assert derived.members == read_release(stack.home / "triton" / "releases" / grown).members
    wide = derived.model_copy(update={"id": "wide", "crop_um": 30.0})
    wide.write(folder)
    assert json.loads(cli(stack, "release", "publish", str(folder), "--json"))["id"] == wide.id
    return wide.id


def scalar(engine: Engine, query: TextClause) -> Any:
    with engine.connect() as connection:
        return connection.execute(query).scalar_one()


def releases_of(night: Night) -> list[str]:
    """The release of each slide's analysis that counts; every cell of it has the probabilities of that release."""
    with night.engine.connect() as connection:
        analyses = connection.execute(
            text(
                "select a.id, a.attempts, r.id, r.document from analysis a join model_release r on r.id = a.release_id"
                " where a.id = any(:ids)"
            ),
            {"ids": night.analysis_ids()},
        ).all()
        for analysis_id, attempts, _, document in analyses:
            assert attempts == 1, "a switch is no attempt"
            cells = connection.execute(
                text(
                    "select probabilities, efficientnetv2_s_logits, resnetv2_50_logits from cell"
                    " where analysis_id = :id"
                ),
                {"id": analysis_id},
            ).all()
            said, first, second = (np.array(values, np.float32) for values in zip(*cells, strict=True))
            temperatures = {f"{m}_temperature": t for m, t in document["fusion"]["temperatures"].items()}
            np.testing.assert_allclose(
                said, fuse(first, second, alpha=document["fusion"]["alpha"], **temperatures), atol=1e-5
            )
    slides = {slide for slide, _ in night.truth}
    assert len(analyses) == len(slides)
    return [release for _, _, release, _ in analyses]


def test_another_release_is_activated_in_mid_batch_and_back(night: Night, stack: Stack, grown: str, other: str) -> None:
    listed = {row["id"]: row["active"] for row in json.loads(cli(stack, "release", "list", "--json"))}
    assert (listed[grown], listed[other]) == (True, False)
    night.upload()
    wait_until(lambda: night.slides("running") > 0, 60, "a slide running")
    assert night.slides("queued") > 0
    switched = json.loads(cli(stack, "release", "activate", other, "--json"))
    assert (switched["before"], switched["triton_restarted"]) == (grown, True)
    night.finish()
    assert other in releases_of(night)
    assert set(releases_of(night)) <= {grown, other}
    again = json.loads(cli(stack, "release", "activate", other, "--json"))
    assert (again["before"], again["slides_moved"], again["triton_restarted"]) == (other, 0, False)

    # Back again, by a command that dies once the database is switched: Triton still serves the other one. A queued
    # slide is moved and waits; the command, run again, restarts Triton, and the slide is analysed.
    stack.stop("worker")
    cli(stack, "requeue", night.batch, "--slide", "slide-05")
    with night.engine.begin() as connection:
        connection.execute(text("update model_release set active = false where active"))
        connection.execute(text("update model_release set active = true where id = :id"), {"id": grown})
    stack.start("worker")
    waiting = text("select count(*) from analysis where state = 'queued' and reason = 'release_not_served'")
    wait_until(lambda: scalar(night.engine, waiting) == 1, 30, "the slide waits for its release")
    back = json.loads(cli(stack, "release", "activate", grown, "--json"))
    assert (back["before"], back["triton_restarted"]) == (grown, True)
    night.finish()
    assert grown in releases_of(night)
    assert set(releases_of(night)) <= {grown, other}
