"""The same networks with another fusion, as a release of its own."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.releases.derive import derive_release
from services.releases.schema import (
    MEMBERS,
    Fusion,
    Member,
    Prior,
    Release,
    ReleaseBroken,
    ReleaseKind,
    digest,
    verify_release,
)
from services.taxonomy import CLASS_NAMES


@pytest.fixture
def release_dir(tmp_path: Path) -> Path:
    """A release with all that `release build` packs, of small files."""
    folder = tmp_path / "release"
    names = (*(f"{m}/model.onnx" for m in MEMBERS), "training/preparation.json", "fusion/choice.json")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"of {name}")
    Release(
        id="night-owl-0123456789ab",
        kind=ReleaseKind.DEMONSTRATION,
        git_commit="a" * 40,
        created=datetime(2026, 11, 1, tzinfo=UTC),
        data_fingerprint="d" * 64,
        classes=CLASS_NAMES,
        crop_px=192,
        crop_um=24.0,
        members={m: Member(onnx=f"{m}/model.onnx") for m in MEMBERS},
        fusion=Fusion(alpha=0.5, temperatures=dict.fromkeys(MEMBERS, 1.0)),
        metrics={
            "validation_fingerprint": "e" * 64,
            "validation": {MEMBERS[0]: 0.8, MEMBERS[1]: 0.7, "fused": 0.9},
            "test": {"fused": 0.9},
        },
        files={name: digest(folder / name) for name in names},
    ).write(folder)
    verify_release(folder)
    return folder


def fusion_in(folder: Path, **changed: object) -> Path:
    folder.mkdir(exist_ok=True)
    fusion = {"alpha": 0.7, "temperatures": dict.fromkeys(MEMBERS, 1.5), "classes": list(CLASS_NAMES), **changed}
    (folder / "fusion.json").write_text(json.dumps(fusion))
    return folder / "fusion.json"


def test_it_has_the_same_networks_another_fusion_and_an_id_of_its_own(release_dir: Path, tmp_path: Path) -> None:
    old = verify_release(release_dir)
    derived = derive_release(release_dir, tmp_path / "out", fusion_json=fusion_in(tmp_path / "fusion"))
    assert derived == verify_release(tmp_path / "out")
    assert derived.id.startswith("night-owl-")
    assert derived.id != old.id
    assert derived.fusion == Fusion(alpha=0.7, temperatures=dict.fromkeys(MEMBERS, 1.5))
    for member in MEMBERS:
        assert derived.files[f"{member}/model.onnx"] == old.files[f"{member}/model.onnx"]
    kept = ("kind", "git_commit", "data_fingerprint", "classes", "crop_px", "crop_um", "members")
    assert all(getattr(derived, name) == getattr(old, name) for name in kept)
    assert derived.metrics == {
        "derived_from": old.id,
        "validation_fingerprint": "e" * 64,
        "validation": {MEMBERS[0]: 0.8, MEMBERS[1]: 0.7},
    }, "what was measured of the old fusion is not said of the new"
    assert "fusion/choice.json" not in derived.files
    other = derive_release(release_dir, tmp_path / "other", fusion_json=fusion_in(tmp_path / "fusion", alpha=0.6))
    fusion = fusion_in(tmp_path / "fusion", alpha=[0.7] * 18)
    by_class = derive_release(release_dir, tmp_path / "by_class", fusion_json=fusion)
    prior = {"learnt": [1 / 18] * 18, "meant": [0.15, *[0.05] * 17], "strength": 0.5}
    fusion = fusion_in(tmp_path / "fusion", prior=prior)
    for_a_mix = derive_release(release_dir, tmp_path / "for_a_mix", fusion_json=fusion)
    assert len({old.id, derived.id, other.id, by_class.id, for_a_mix.id}) == 5
    assert verify_release(tmp_path / "for_a_mix").fusion.prior == Prior.model_validate(prior)
    assert verify_release(tmp_path / "by_class").fusion.alpha == (0.7,) * 18


def test_how_the_fusion_was_chosen_comes_along(release_dir: Path, tmp_path: Path) -> None:
    fusion = fusion_in(tmp_path / "fusion")
    fusion.with_name("choice.json").write_text(json.dumps({"at_alpha": {"f1": 0.95}, "alpha_as_good": [0.2, 0.7]}))
    fusion.with_name("curve.svg").write_text("<svg/>")
    derived = derive_release(release_dir, tmp_path / "out", fusion_json=fusion)
    assert {"fusion/choice.json", "fusion/curve.svg"} <= set(derived.files)
    assert derived.metrics["validation"]["fused"] == {"f1": 0.95}
    assert derived.metrics["alpha_as_good"] == [0.2, 0.7]


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": 1.2},
        {"alpha": None},
        {"alpha": [0.5] * 17},
        {"alpha": [0.5] * 17 + [1.2]},
        {"temperatures": {MEMBERS[0]: 1.0}},
        {"temperatures": {MEMBERS[0]: 1.0, MEMBERS[1]: 0.0}},
        {"classes": list(CLASS_NAMES[::-1])},
        {"prior": {"learnt": [0.5, 0.5], "meant": [0.9, 0.1], "strength": 1.0}},
    ],
)
def test_what_is_no_fusion_of_these_networks_is_refused(
    release_dir: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    with pytest.raises(ReleaseBroken, match=r"fusion\.json"):
        derive_release(release_dir, tmp_path / "out", fusion_json=fusion_in(tmp_path / "fusion", **changed))
    assert not (tmp_path / "out").exists()


def test_a_release_is_never_written_over(release_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        derive_release(release_dir, release_dir, fusion_json=fusion_in(tmp_path / "fusion"))


def test_another_rule_of_what_counts_is_another_release_with_the_same_fusion(release_dir: Path, tmp_path: Path) -> None:
    old = verify_release(release_dir)
    assert "minimum_crop_inside_share" not in old.document(), "documents on record stay what they are"
    derived = derive_release(release_dir, tmp_path / "out", minimum_crop_inside_share=0.8)
    assert derived == verify_release(tmp_path / "out")
    assert (derived.id != old.id, derived.minimum_crop_inside_share) == (True, 0.8)
    assert (derived.fusion, derived.files) == (old.fusion, old.files)
    assert derived.metrics == {**old.metrics, "derived_from": old.id}
    fused = derive_release(tmp_path / "out", tmp_path / "other", fusion_json=fusion_in(tmp_path / "fusion"))
    assert fused.minimum_crop_inside_share == 0.8, "another fusion changes nothing of it"
    assert derive_release(release_dir, tmp_path / "third", minimum_crop_inside_share=0.7).id != derived.id
