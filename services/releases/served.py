"""Which release a Triton serves, read from the configurations of its four models."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.errors import ConfigurationError
from services.taxonomy import CLASS_NAMES

ENSEMBLE: Final = "sperm_morphology"
MODELS: Final = ("efficientnetv2_s", "resnetv2_50", "logit_fusion", ENSEMBLE)


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """The release that every model of the ensemble belongs to. `crop_px` and `crop_um` are the side of a crop."""

    release_id: str
    classes: tuple[str, ...]
    crop_px: int
    crop_um: float
    form: str  # as compiled: the ONNX files as they are, int8, …


def ensemble_version(release_id: str) -> int:
    """The version under which Triton serves the ensemble of a release.

    Every request asks for it, so that no answer comes from another release, whatever happens to Triton in between.
    """
    return 1 + int.from_bytes(hashlib.sha256(release_id.encode()).digest()[:4]) // 2


def served_release(configurations: Mapping[str, Mapping[str, Any]], *, batch: int) -> ServedRelease:
    """The one release of `configurations` (by model name, as Triton gives them in JSON).

    Raises:
        ConfigurationError: the models are of different releases, lack a parameter, know other classes than this
            version, or take smaller batches than `batch`.
    """
    releases = {model: _release_of(model, configuration) for model, configuration in configurations.items()}
    if len(set(releases.values())) > 1:
        differing = "; ".join(
            f"{model}: {r.release_id} ({r.form}), {r.crop_px} px, {r.crop_um} µm, {len(r.classes)} classes"
            for model, r in releases.items()
        )
        raise ConfigurationError(
            f"Triton serves models of different releases ({differing}): lay the repository out again"
        )
    release = releases[ENSEMBLE]
    if release.classes != CLASS_NAMES:
        raise ConfigurationError(
            f"release {release.release_id} has the classes {', '.join(release.classes)};"
            f" this version of morphbatch knows {', '.join(CLASS_NAMES)}, in this order"
        )
    for model, configuration in configurations.items():
        most = int(configuration.get("max_batch_size", 0))
        if most < batch:
            raise ConfigurationError(
                f"Triton's {model} takes {most} crops per request, not {batch}; lower MORPHBATCH_INFERENCE_BATCH"
            )
    return release


def _release_of(model: str, configuration: Mapping[str, Any]) -> ServedRelease:
    values = {name: value.get("string_value", "") for name, value in configuration.get("parameters", {}).items()}
    try:
        return ServedRelease(
            release_id=values["release_id"],
            classes=tuple(values["classes"].split(",")),
            crop_px=int(values["crop_px"]),
            crop_um=float(values["crop_um"]),
            form=values["form"],
        )
    except (KeyError, ValueError) as error:
        raise ConfigurationError(
            f"the configuration of Triton's {model} does not state its release ({type(error).__name__}: {error});"
            " lay the repository out from a release"
        ) from error
