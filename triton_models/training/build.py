"""`morphbatch release build`: two trained members and their fusion → a release folder. Needs the `train` extra."""

import hashlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.atomic import whole_folder, write_text
from services.documents import describe, read_json_object
from services.errors import ConfigurationError
from services.releases.schema import MEMBERS, Fusion, Member, Release, ReleaseKind, digest, verify_release
from triton_models.export.network import export_network
from triton_models.export.self_test import write_self_test
from triton_models.training.config import (
    Network,
    Preparation,
    TrainingConfig,
    as_toml,
    read_config,
    with_weights,
)
from triton_models.training.fusion.fuse import CHOICE_NAME, CURVE_NAME, FUSION_NAME, read_run
from triton_models.training.learning.networks import build_network, load_weights
from triton_models.training.learning.train import CONFIG_NAME, git_commit
from triton_models.training.reports.released import CHOICE_IN_RELEASE, PREPARATION_NAME


class MembersDisagree(ConfigurationError):
    """Two runs and a fusion cannot be one release: their classes or crops differ, or a file of theirs is damaged."""

    reason = "members_disagree"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a release is made of: a run folder of each member, and the folder of their fusion."""

    runs: dict[str, Path]
    fusion: Path


def build_release(
    parts: Parts,
    out: Path,
    name: str,
    crop_um: float,
    kind: ReleaseKind,
    metrics: dict[str, Any] | None = None,
    compress: bool = False,
    minimum_crop_inside_share: float | None = None,
) -> Release:
    """Export both members and write the release folder `out`, which appears only when it is whole.

    Args:
        parts: run folders by member, and the fusion folder.
        out: must not exist.
        name: the release's id begins with it; the rest is a digest of its files.
        crop_um: side of a crop, µm.
        kind: how far it may be believed.
        metrics: further figures for the document.
        compress: store the weights as int8, a quarter of the bytes.
        minimum_crop_inside_share: a cell counts if so much of its crop lies in the field; None: each does.

    Raises:
        AlreadyThere: `out` exists.
        MembersDisagree: the members were trained on other classes or crops than each other or the fusion.
    """
    records = {member: read_run(parts.runs[member]) for member in MEMBERS}
    fusion = _read_part(parts.fusion / FUSION_NAME, "alpha", "temperatures", "classes")
    choice = _read_part(parts.fusion / CHOICE_NAME, "alpha_as_good", "at_alpha", "member_temperatures")
    for what in ("classes", "preparation", "training_fingerprint"):
        values = [record[what] for record in records.values()]
        if values[0] != values[1]:
            raise MembersDisagree(f"the members differ in {what}: {values[0]} and {values[1]}")
    first = records[MEMBERS[0]]
    if fusion["classes"] != first["classes"]:
        raise MembersDisagree(f"the fusion is of {fusion['classes']}, the members of {first['classes']}")
    try:
        preparation = Preparation.model_validate(first["preparation"])
        chosen = Fusion.model_validate({name: fusion.get(name) for name in Fusion.model_fields})
    except ValidationError as error:
        raise MembersDisagree(f"{parts.runs[MEMBERS[0]]} or {parts.fusion}: {describe(error)}") from error

    with whole_folder(out) as partial:
        for member in MEMBERS:
            (partial / member).mkdir(parents=True)
            network = build_network(member, len(first["classes"]), Network())
            load_weights(network, str(parts.runs[member] / records[member]["weights"]))
            path = partial / member / "model.onnx"
            export_network(network.eval(), preparation.side_px, path, len(first["classes"]), compress)
            write_text(
                partial / member / CONFIG_NAME, as_toml(_portable(read_config(parts.runs[member] / CONFIG_NAME)))
            )
        write_text(partial / PREPARATION_NAME, preparation.model_dump_json(indent=2) + "\n")
        (partial / "fusion").mkdir()
        shutil.copyfile(parts.fusion / CHOICE_NAME, partial / CHOICE_IN_RELEASE)
        shutil.copyfile(parts.fusion / CURVE_NAME, partial / "fusion" / CURVE_NAME)

        onnx_files = {member: partial / member / "model.onnx" for member in MEMBERS}
        classes = tuple(first["classes"])
        write_self_test(partial, onnx_files, chosen, classes, crop_um, preparation.side_px)
        files = {
            path.relative_to(partial).as_posix(): digest(path) for path in sorted(partial.rglob("*")) if path.is_file()
        }
        listed = "".join(f"{path}{file.sha256}" for path, file in files.items())
        rule = "" if minimum_crop_inside_share is None else f"{minimum_crop_inside_share!r}"
        content = hashlib.sha256(f"{listed}{rule}".encode()).hexdigest()
        release = Release(
            id=f"{name}-{content[:12]}",
            kind=kind,
            git_commit=git_commit(),
            created=datetime.now(UTC),
            data_fingerprint=first["training_fingerprint"],
            classes=classes,
            crop_px=preparation.side_px,
            crop_um=crop_um,
            members={member: Member(onnx=f"{member}/model.onnx") for member in MEMBERS},
            fusion=chosen,
            metrics={
                "validation_fingerprint": first["validation_fingerprint"],
                "validation": {
                    **{member: record.get("validation") for member, record in records.items()},
                    "fused": choice["at_alpha"],
                },
                "alpha_as_good": choice["alpha_as_good"],
                **(metrics or {}),
            },
            files=files,
            minimum_crop_inside_share=minimum_crop_inside_share,
        )
        release.write(partial)
        verify_release(partial, classes=release.classes)
    return release


def _read_part(path: Path, *needed: str) -> dict[str, Any]:
    given = read_json_object(path, MembersDisagree)
    if missing := [name for name in needed if name not in given]:
        raise MembersDisagree(f"{path} lacks {', '.join(missing)}; `morphbatch fuse` writes it")
    return given


def _portable(config: TrainingConfig) -> TrainingConfig:
    """`config` with its data and its start named, but without the folders of the machine that it ran on."""
    weights = config.network.weights
    if weights is not None and not weights.startswith("hub:"):
        weights = Path(*Path(weights).parts[-2:]).as_posix()
    data = config.data.model_copy(update={"path": Path(config.data.path.name)})
    return with_weights(config.model_copy(update={"data": data}), weights)
