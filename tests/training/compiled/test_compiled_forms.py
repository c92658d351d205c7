"""int8 by NNCF, its accuracy control, and the proof of every form, by the commands, on two small networks."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.releases.schema import MEMBERS, verify_release
from tests.small_release import CROP_PX, build_small_release, coloured_crops
from triton_models.compile import int8, proof
from triton_models.compile.int8 import AccuracyLost, Quantisation, drawn_evenly
from triton_models.compile.openvino_network import OpenVinoNetwork
from triton_models.export.network import export_network
from triton_models.forms.difference import FormDiffers
from triton_models.forms.form import OPENVINO_INT8, FormMissing, form_folder, place_files, read_form
from triton_models.layout.repository import lay_out_repository
from triton_models.training.data.dataset import LabelledImage
from triton_models.training.reports.released import open_release

CLASSES = ("Normal", "PinHead", "RoundHead")


def invoke(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def run(*arguments: str | Path) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small release with weights stored as int8, and cells that it is right about, in train and val."""
    folder = tmp_path_factory.mktemp("made")
    release = build_small_release(folder / "release", classes=CLASSES, compressed=True)
    classifier = open_release(folder / "release", threads=1)
    crops = coloured_crops(400, seed=5)
    logits = {member: classifier.logits_of(member, crops) for member in MEMBERS}
    fused = classifier.fused(logits)
    ranked = np.sort(fused, axis=1)
    agreed = np.all([logits[member].argmax(1) == fused.argmax(1) for member in MEMBERS], axis=0)
    sure = np.flatnonzero((ranked[:, -1] - ranked[:, -2] > 0.2) & agreed)
    assert len(sure) > 150
    for number, place in enumerate(sure):
        kind = folder / "cells" / ("train" if number % 2 else "val") / release.classes[fused[place].argmax()]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crops[place]).save(kind / f"{number:03}.png")
    run(
        "release", "compile", folder / "release", "--target", OPENVINO_INT8, "--data", folder / "cells", "--cells", "60"
    )
    return folder / "release", folder / "cells"


def test_int8_is_written_whole_with_what_was_measured(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = made
    release = verify_release(folder, classes=None)
    form = read_form(folder, release, OPENVINO_INT8)
    assert form.measured["calibration"]["cells"] == 60
    assert form.measured["calibration"]["fingerprint"] != form.measured["check"]["fingerprint"]
    assert form.measured["macro_f1"]["fused"]["onnx"] == 1.0
    assert -form.measured["macro_f1"]["fused"]["change"] <= form.measured["max_drop"] == 0.005
    assert set(form.measured["f1_change"]) == set(CLASSES)
    assert form.versions.keys() == {"nncf", "openvino"}
    # The hint to stay in fp32 undoes none of it: what the server opens runs in int8.
    for member in MEMBERS:
        assert sum(form.measured["layers"][member].values()) == 3
        assert form.measured["layers"][member]["int8"] >= 1
        (tmp_path / member).mkdir()
        place_files(folder, release, form, member, tmp_path / member)
        network = OpenVinoNetwork(tmp_path / form.members[member], release.crop_px)
        assert network.layers() == form.measured["layers"][member]
        text = (form_folder(folder, OPENVINO_INT8) / form.members[member]).read_text()
        assert not any(place in text for place in ("/home", "/root", str(folder), str(Path.cwd())))
        fp32 = OpenVinoNetwork(folder / member / "model.onnx", release.crop_px)
        assert fp32.layers()["int8"] == 0


def test_every_form_is_proven_on_real_crops(made: tuple[Path, Path]) -> None:
    folder, cells = made
    said = json.loads(
        run("release", "verify", folder, "--data", cells, "--cells", "80", "--form", OPENVINO_INT8, "--json")
    )
    fp32, small = said["forms"]
    assert (fp32["form"], fp32["proven"], small["form"], small["proven"]) == (
        "openvino-fp32",
        True,
        OPENVINO_INT8,
        True,
    )
    assert max(fp32["difference"][member]["max_abs"] for member in MEMBERS) < 1e-3
    assert small["cells"] == 80
    assert small["difference"]["fused"]["same_class"] >= 0.98
    assert small["difference"][MEMBERS[0]]["mean_abs"] > 1e-3
    with pytest.raises(FormMissing, match="no form tensorrt-x"):
        run("release", "verify", folder, "--cells", "8", "--form", "tensorrt-x")


def test_a_form_that_answers_otherwise_is_refused(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cells = made
    run("release", "verify", folder, "--data", cells, "--cells", "16")
    honest = proof._logits

    def altered(release_dir, release, form, crops):  # type: ignore[no-untyped-def]
        found = honest(release_dir, release, form, crops)
        return {member: logits + 0.002 for member, logits in found.items()}

    monkeypatch.setattr(proof, "_logits", altered)
    # The networks were compared, and the answer is "not good": exit code 1, as of every check.
    done = invoke("release", "verify", folder, "--data", cells, "--cells", "16")
    assert done.exit_code == 1
    assert re.search(r"form_differs.*openvino-fp32: logits differ by 0\.002", done.stderr)


def test_int8_against_fp32_in_one_run(made: tuple[Path, Path]) -> None:
    folder, cells = made
    found = json.loads(
        run("evaluate", "forms", folder, cells, "--split", "val", "--rounds", "2", "--cells", "32", "--json")
    )
    assert found["cells"] == len(list((cells / "val").rglob("*.png")))
    for network in (*MEMBERS, "pair"):
        assert found["crops_per_s"]["openvino-fp32"][network]["median"] > 0
        ratio = found["speed_ratio"][network]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert found["macro_f1"]["fused"]["onnx"] == 1.0
    assert set(found["f1_change"]) == set(CLASSES)
    assert "Normal" in run("evaluate", "forms", folder, cells, "--split", "val", "--rounds", "1", "--cells", "8")


def test_int8_that_loses_too_much_is_not_written(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cells = made
    folder = tmp_path / "release"
    build_small_release(folder, classes=CLASSES, seed=1, compressed=True)
    monkeypatch.setattr(int8, "_quantise", lambda network, *_: int8.read_network(_rolled(network, tmp_path)))
    arguments = ("release", "compile", folder, "--target", OPENVINO_INT8, "--data", cells)
    with pytest.raises(AccuracyLost, match=r"fused 1\.0000 → 0\.\d+; most in"):
        run(*arguments)
    with pytest.raises(FormDiffers, match="keep their class"):
        run(*arguments, "--max-drop", "1")
    assert list((folder / "forms").iterdir()) == []


def _rolled(network: Path, folder: Path) -> Path:
    """The same network with each class in another's place."""
    model = onnx.load(network)
    for tensor in model.graph.initializer:
        if tensor.name in ("head", "bias"):
            tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=0), tensor.name))
    onnx.save(model, folder / "rolled.onnx")
    return folder / "rolled.onnx"


def test_cells_that_calibrate_do_not_check(made: tuple[Path, Path]) -> None:
    folder, cells = made
    done = CliRunner().invoke(
        app,
        ["release", "compile", str(folder), "--target", OPENVINO_INT8, "--data", str(cells), "--check", "train"],
    )
    assert done.exit_code == 2
    assert "cannot also check" in done.output


def test_an_int8_repository_holds_the_network_it_names(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = made
    release = verify_release(folder, classes=None)
    with pytest.raises(Exception, match="classes are"):
        lay_out_repository(folder, tmp_path / "repository", form=OPENVINO_INT8)
    form = read_form(folder, release, OPENVINO_INT8)
    assert {path.rpartition("/")[2] for path in form.files} == {"model.xml", "model.bin"}


def test_only_what_convolutions_and_products_read_is_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each crop's own mean and spread, the residual sums and the gates of the real networks stay in fp32."""
    network = tmp_path / "model.onnx"
    export_network(timm.create_model("test_efficientnet", num_classes=4), CROP_PX, network, classes=4)
    crops = coloured_crops(40, seed=3)
    logits = OpenVinoNetwork(network, CROP_PX).logits(crops)
    monkeypatch.setattr(int8, "worth_kept", lambda *_: 1.0)  # or layers of this small network go back to fp32
    quantised = int8._quantise(network, crops[:20], crops, logits.argmax(1), logits, Quantisation(tmp_path))
    rounded = [node for node in quantised.get_ops() if node.get_type_name() == "FakeQuantize"]
    readers = {put.get_node().get_type_name() for node in rounded for put in node.output(0).get_target_inputs()}
    assert {"Convolution", "MatMul"} <= readers <= {"Convolution", "GroupConvolution", "MatMul"}


@pytest.mark.parametrize(
    ("changed", "wrong", "worth"),
    [
        (0, 0, 1.0),
        (10, 0, 0.5),  # of 1000 cells, 20 may change
        (20, 0, 0.0),
        (20, 20, -1.0),  # macro-F1 drops by 0.02, twice of what it may
    ],
)
def test_accuracy_control_minds_both_rules(changed: int, wrong: int, worth: float) -> None:
    truth = np.repeat([0, 1], 500)
    before = truth.copy()
    before[:10] = 1  # fp32 is wrong on some, int8 may be right on them
    before[500:510] = 0
    after = before.copy()
    if wrong:
        after[100:110], after[600:610] = 1, 0
    else:
        after[: changed // 2], after[500 : 500 + changed // 2] = 0, 1
    assert int8.worth_kept(truth, before, after, max_drop=0.01) == pytest.approx(worth, abs=1e-6)


def test_rare_classes_calibrate_too() -> None:
    images = [
        LabelledImage(Path(f"{kind}{number}"), kind, kind, "train", None, None)
        for kind, count in (("common", 90), ("rare", 5), ("single", 1))
        for number in range(count)
    ]
    picked = drawn_evenly(images, 20, seed=0)
    counts = {kind: sum(image.label == kind for image in picked) for kind in ("common", "rare", "single")}
    assert counts == {"common": 14, "rare": 5, "single": 1}
    assert picked == drawn_evenly(images, 20, seed=0) != drawn_evenly(images, 20, seed=1)
