"""From images to a release and its evaluation, by the commands, with timm's networks for tests as members."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from services.cli.main import app
from services.releases.schema import MEMBERS, TIMM_NAMES, ReleaseKind, verify_release
from triton_models.export.network import ServedNetwork, standardised
from triton_models.training.build import MembersDisagree, Parts, build_release
from triton_models.training.config import Network, read_config
from triton_models.training.data.preparation import read_crops
from triton_models.training.learning.networks import build_network, load_weights
from triton_models.training.reports.released import open_release

TOML = """
[data]
path = "cells"
classes = "found"
[preparation]
view_px = 48
side_px = 32
[augmentation]
stain = 0
blur = 0
noise = 0
cutout = 0
[optimisation]
epochs = 5
batch = 8
learning_rate = 5e-3
warmup_epochs = 1
ema_decay = 0.9
[run]
threads = 1
"""


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def tiny_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIMM_NAMES, "efficientnetv2_s", "test_efficientnet")
    monkeypatch.setitem(TIMM_NAMES, "resnetv2_50", "test_resnet")


@pytest.mark.usefixtures("tiny_members")
def test_train_fuse_release_evaluate(cells: Callable[..., Path], tmp_path: Path) -> None:
    kinds = {"normal": 30, "non_sperm": 0, "tapered": 30}
    root = cells({split: {k: n // d for k, n in kinds.items() if n} for split, d in (("train", 1), ("val", 3))})
    (tmp_path / "tiny.toml").write_text(TOML)
    for member in MEMBERS:
        record = json.loads(
            run("train", tmp_path / "tiny.toml", "--member", member, "--out", tmp_path / member, "--json")
        )
        assert record["classes"] == ["Normal", "TaperedHead"]
    choice = json.loads(run("fuse", *(tmp_path / m for m in reversed(MEMBERS)), "--out", tmp_path / "fusion", "--json"))
    better = max(choice["members"].values())
    assert choice["at_alpha"]["macro_f1"] >= better

    release = tmp_path / "release"
    built = json.loads(
        run(
            *("release", "build", "--efficientnetv2-s", tmp_path / MEMBERS[0], "--resnetv2-50", tmp_path / MEMBERS[1]),
            *("--fusion", tmp_path / "fusion", "--out", release, "--crop-um", "16", "--name", "tiny", "--json"),
        )
    )
    metrics = verify_release(release, classes=("Normal", "TaperedHead")).metrics
    assert metrics["alpha_as_good"] == choice["alpha_as_good"]
    assert built["kind"] == "trained"

    page = tmp_path / "report.html"
    found = json.loads(run("evaluate", "classifier", root / "val", "--release", release, "--html", page, "--json"))
    assert found["images"] == 20
    assert set(found["accuracy"]) == {*MEMBERS, "fused"}
    assert found["macro_f1"]["fused"] == pytest.approx(choice["at_alpha"]["macro_f1"], abs=1e-9)
    assert found["chose_alpha"]
    assert page.read_text().count("<svg") == 4
    assert "were as good as the best within one standard error" in page.read_text()
    assert 'src="http' not in page.read_text()

    how = read_config(tmp_path / "tiny.toml").preparation
    paths = sorted((root / "val" / "normal").iterdir())
    onnx_logits = open_release(release, threads=1).logits(paths)
    crops = torch.from_numpy(read_crops(paths, how))
    for member in MEMBERS:
        network = build_network(member, 2, Network()).eval()
        load_weights(network, str(tmp_path / member / "best.pt"))
        with torch.inference_mode():
            as_trained = network(standardised(crops.permute(0, 3, 1, 2).float() / 255)).numpy()
            as_served = ServedNetwork(network).eval()(crops).numpy()
        assert np.abs(as_trained - as_served).max() < 1e-4
        assert np.abs(as_trained - onnx_logits[member]).max() < 1e-3

    for member in MEMBERS:
        assert str(tmp_path) not in (Path(release) / member / "config.toml").read_text(), "a release travels"
        assert (Path(release) / member / "config.toml").read_text().count(f'path = "{root.name}"') == 1

    other = json.loads((tmp_path / MEMBERS[0] / "run.json").read_text())
    other["preparation"]["view_px"] = 40
    (tmp_path / MEMBERS[0] / "run.json").write_text(json.dumps(other))
    parts = Parts({member: tmp_path / member for member in MEMBERS}, tmp_path / "fusion")
    with pytest.raises(MembersDisagree, match="preparation"):
        build_release(parts, tmp_path / "second", "tiny", 16.0, ReleaseKind.TRAINED)
    assert not (tmp_path / "second").exists()
