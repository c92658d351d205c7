"""The commands that reproduce figures on public data, for an epoch on a few drawn cells."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from services.imaging.types import Box
from services.releases.schema import MEMBERS, read_release
from services.smears.field import FieldSpec, draw_field
from services.taxonomy import CLASS_NAMES
from triton_models.layout.served_here import SHIPPED
from triton_models.training import reproduce
from triton_models.training.config import read_config
from triton_models.training.data.dataset import read_dataset
from triton_models.training.data.drawn import DrawnSpec, _cell_at, write_drawn_cells, write_lone_cells
from triton_models.training.learning.logits import read_logits
from triton_models.training.learning.side_by_side import RunOfOtherSettings

KINDS = {"normal": 9, "tapered": 9}


@pytest.mark.parametrize("path", sorted(reproduce.CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    read_config(path)


def test_every_fold_is_judged_by_networks_that_have_not_seen_it(cells: Callable[..., Path], tmp_path: Path) -> None:
    root = cells({"fold1": KINDS, "fold2": KINDS}, "hushem")
    arguments = ["hushem", "--data", str(root), "--out", str(tmp_path / "out"), "--epochs", "1"]
    done = CliRunner().invoke(reproduce.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output

    held = [read_logits(tmp_path / "out" / f"{MEMBERS[0]}-{fold}" / "validation.npz") for fold in ("fold1", "fold2")]
    assert {name.partition("/")[0] for name in held[0].names} == {"fold1"}
    record = json.loads((tmp_path / "out" / f"{MEMBERS[0]}-fold1" / "run.json").read_text())
    assert sum(record["counts"].values()) + record["twins_left_out"] == 18
    assert record["weights"] == "last.pt"
    release = read_release(tmp_path / "out" / "release")
    assert release.metrics["started"] == f"from {read_release(SHIPPED).id}"
    assert json.loads((tmp_path / "out" / MEMBERS[0] / "run.json").read_text())["counts"] == {
        "Normal": 9 * 2,
        "TaperedHead": 9 * 2,
    }
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["images"] == 36
    assert document["cross_validated"]
    assert (tmp_path / "out" / "report.html").is_file()

    before = (tmp_path / "out" / MEMBERS[0] / "last.pt").stat().st_mtime_ns
    assert CliRunner().invoke(reproduce.app, arguments, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "out" / MEMBERS[0] / "last.pt").stat().st_mtime_ns == before
    with pytest.raises(RunOfOtherSettings, match=f"{MEMBERS[0]}-fold1"):
        CliRunner().invoke(reproduce.app, [*arguments[:-1], "2"], catch_exceptions=False)


def test_drawn_first_weights_are_asked_for_and_written_down(cells: Callable[..., Path], tmp_path: Path) -> None:
    root = cells({"train": KINDS, "val": KINDS}, "smids")
    arguments = ["smids", "--data", str(root), "--out", str(tmp_path / "out"), "--epochs", "1", "--scratch"]
    done = CliRunner().invoke(reproduce.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert read_release(tmp_path / "out" / "release").metrics["started"] == "from scratch"
    for member in MEMBERS:
        assert read_config(tmp_path / "out" / member / "config.toml").network.weights is None


def test_drawn_cells_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_drawn_cells(tmp_path / name, DrawnSpec({"train": 1, "val": 1}, 22.0, 48, seed=seed))
    images = read_dataset(tmp_path / "one").images
    assert len({image.label for image in images}) >= 15  # all 18 were dealt; the border cuts some
    others = {path.read_bytes() for path in (tmp_path / "other").rglob("*.png")}
    for image in images:
        there = image.path.relative_to(tmp_path / "one")
        assert image.path.read_bytes() == (tmp_path / "again" / there).read_bytes()
        assert image.path.read_bytes() not in others


def test_lone_cells_are_of_every_class_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_lone_cells(tmp_path / name, DrawnSpec({}, 22.0, 48, seed=seed), {"train": 2, "val": 1})
    images = read_dataset(tmp_path / "one").images
    assert Counter((image.split, image.label) for image in images) == Counter(
        {("train", name): 2 for name in CLASS_NAMES} | {("val", name): 1 for name in CLASS_NAMES}
    )
    assert len({image.path.read_bytes() for image in images}) == len(images)
    others = {path.read_bytes() for path in (tmp_path / "other").rglob("*.png")}
    for image in images:
        there = image.path.relative_to(tmp_path / "one")
        assert image.path.read_bytes() == (tmp_path / "again" / there).read_bytes()
        assert image.path.read_bytes() not in others


def test_a_found_head_is_the_cell_that_it_lies_on() -> None:
    field = draw_field(np.random.default_rng(3), FieldSpec(classes=(3, 7, 7), debris=0))
    for cell in field.truth.cells:
        x0, y0, x1, y1 = cell.head_box
        half = Box(int(x0), int(y0), int((x0 + x1) / 2), int(y1))
        assert _cell_at(half, field.truth.cells) is cell
    assert _cell_at(Box(0, 0, 3, 3), field.truth.cells) is None
