"""`morphbatch release derive`: the networks of a release with another fusion or another rule of what counts.

It is a release of its own. Its ONNX files are the same bytes, so that the logits on record under the old one may be
fused again (`morphbatch release reapply`), and nothing of it needs torch.
"""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from services.atomic import whole_folder
from services.documents import describe, read_json_object
from services.releases.schema import FileDigest, Fusion, Release, ReleaseBroken, digest, verify_release

_OF_FUSION: Final = "fusion/"
"""Where a release keeps how its fusion was chosen; another fusion was chosen in another way."""
_BESIDE: Final = ("choice.json", "curve.svg")


def derive_release(
    release_dir: Path, out: Path, *, fusion_json: Path | None = None, minimum_crop_inside_share: float | None = None
) -> Release:
    """Write the release folder `out`: the release in `release_dir` with what is given, and its own where it is not.

    `fusion_json` is what `morphbatch fuse` writes; `choice.json` and `curve.svg` beside it are taken along. The
    folder appears only when it is whole.

    Raises:
        AlreadyThere: `out` exists.
        ReleaseBroken: the release is not what its document says; or the fusion is none, or of other classes.
    """
    release = verify_release(release_dir, classes=None)
    fusion = release.fusion if fusion_json is None else _read_fusion(fusion_json, release)
    minimum = release.minimum_crop_inside_share if minimum_crop_inside_share is None else minimum_crop_inside_share
    with whole_folder(out) as partial:
        files = dict(release.files)
        if fusion_json is not None:
            files = {name: file for name, file in files.items() if not name.startswith(_OF_FUSION)}
        for name in files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(release_dir / name, partial / name)
        if fusion_json is not None:
            files |= _take_along(fusion_json, partial)
        derived = release.model_copy(
            update={
                "id": f"{release.id.rsplit('-', 1)[0]}-{_content(files, fusion, minimum)[:12]}",
                "created": datetime.now(UTC),
                "fusion": fusion,
                "metrics": {**release.metrics, "derived_from": release.id}
                if fusion_json is None
                else _metrics(release, partial / _OF_FUSION / "choice.json"),
                "files": files,
                "minimum_crop_inside_share": minimum,
            }
        )
        derived.write(partial)
        verify_release(partial, classes=derived.classes)
    return derived


def _take_along(fusion_json: Path, partial: Path) -> dict[str, FileDigest]:
    """Copy how the fusion was chosen into the unfinished release; the files by name."""
    files = {}
    for name in _BESIDE:
        beside = fusion_json.with_name(name)
        if beside.is_file():
            (partial / _OF_FUSION).mkdir(exist_ok=True)
            shutil.copyfile(beside, partial / _OF_FUSION / name)
            files[_OF_FUSION + name] = digest(partial / _OF_FUSION / name)
    return files


def _read_fusion(path: Path, release: Release) -> Fusion:
    given = read_json_object(path, ReleaseBroken)
    try:
        fusion = Fusion.model_validate({name: given.get(name) for name in Fusion.model_fields})
        fusion.check_classes(len(release.classes))
    except ValidationError as error:
        raise ReleaseBroken(f"{path} is not a fusion, such as `morphbatch fuse` writes: {describe(error)}") from error
    except ValueError as error:
        raise ReleaseBroken(f"{path} is not a fusion of this release: {error}") from error
    if set(fusion.temperatures) != set(release.members):
        raise ReleaseBroken(f"{path}: temperatures must be of {', '.join(release.members)}")
    classes = given.get("classes", list(release.classes))
    if classes != list(release.classes):
        raise ReleaseBroken(f"{path} is of the classes {classes}; the release of {', '.join(release.classes)}")
    return fusion


def _content(files: dict[str, FileDigest], fusion: Fusion, minimum: float | None) -> str:
    listed = "".join(f"{name}{file.sha256}" for name, file in sorted(files.items()))
    rule = "" if minimum is None else f"{minimum!r}"
    return hashlib.sha256(f"{listed}{json.dumps(fusion.model_dump(), sort_keys=True)}{rule}".encode()).hexdigest()


def _metrics(release: Release, choice: Path) -> dict[str, object]:
    """The members' figures are theirs still; those of the fusion are the new one's, or unknown."""
    metrics: dict[str, object] = {"derived_from": release.id}
    validation = release.metrics.get("validation")
    if validation is not None:
        metrics |= {name: value for name, value in release.metrics.items() if name == "validation_fingerprint"}
        metrics["validation"] = figures = {member: validation.get(member) for member in release.members}
        if choice.is_file():
            chosen = read_json_object(choice, ReleaseBroken)
            figures["fused"] = chosen.get("at_alpha")
            metrics["alpha_as_good"] = chosen.get("alpha_as_good")
    return metrics
