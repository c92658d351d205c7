"""The text of each `config.pbtxt`. Every one carries the release, so that a client can tell what it is served."""

from dataclasses import dataclass
from typing import Final

from triton_models.release.schema import MEMBERS, Release

ENSEMBLE: Final = "sperm_morphology"
FUSION: Final = "logit_fusion"
MODELS: Final = (*MEMBERS, FUSION, ENSEMBLE)
MAX_BATCH: Final = 64
LOGITS: Final = {member: f"{member.upper()}_LOGITS" for member in MEMBERS}


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the embedded backend uses the CPU, per member. Sub-batches of 4 on a one-threaded stream a core (`streams` 0)
    were as quick as any other setting on two cores.

    `max_queue_size` 0 bounds no queue: in the server of the wheel (Triton 2.51) a member that refuses a request of the
    ensemble, because its queue is full or its time in the queue is over, brings the whole server down with SIGSEGV or
    leaves the request hanging (mended upstream in 2026: triton-inference-server/core #466 and #483). What bounds the
    work there is what each client may have in flight, and the clients' deadlines.
    """

    sub_batch: int = 4
    streams: int = 0
    max_queue_size: int = 0


def _parameters(release: Release, extra: dict[str, str]) -> str:
    values = {
        "release_id": release.id,
        "classes": ",".join(release.classes),
        "crop_px": str(release.crop_px),
        "crop_um": repr(release.crop_um),
        **extra,
    }
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )


def _tensor(direction: str, name: str, kind: str, dims: tuple[int, ...]) -> str:
    return f'{direction} {{ name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ] }}'


def _queue(options: EmbeddedOptions) -> str:
    bound = f"default_queue_policy {{ max_queue_size: {options.max_queue_size} }} " if options.max_queue_size else ""
    return f"dynamic_batching {{ {bound}}}"


def member_config(release: Release, member: str, options: EmbeddedOptions) -> str:
    """`config.pbtxt` of a network under the embedded backend."""
    side, classes = release.crop_px, len(release.classes)
    settings = {
        "sub_batch": str(options.sub_batch),
        "streams": str(options.streams),
    }
    return f"""name: "{member}"
backend: "python"
max_batch_size: {MAX_BATCH}
{_tensor("input", "CROPS", "TYPE_UINT8", (side, side, 3))}
{_tensor("output", "LOGITS", "TYPE_FP32", (classes,))}
instance_group {{ count: 1 kind: KIND_CPU }}
{_queue(options)}
response_cache {{ enable: false }}
model_warmup {{
  name: "one_sub_batch"
  batch_size: {options.sub_batch}
  inputs {{ key: "CROPS" value {{ data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] random_data: true }} }}
}}
{_parameters(release, settings)}
"""


def fusion_config(release: Release, options: EmbeddedOptions) -> str:
    """`config.pbtxt` of the logit fusion."""
    classes = len(release.classes)
    inputs = "\n".join(_tensor("input", LOGITS[member], "TYPE_FP32", (classes,)) for member in MEMBERS)
    return f"""name: "{FUSION}"
backend: "python"
max_batch_size: {MAX_BATCH}
{inputs}
{_tensor("output", "PROBABILITIES", "TYPE_FP32", (classes,))}
instance_group {{ count: 1 kind: KIND_CPU }}
{_queue(options)}
response_cache {{ enable: false }}
{_parameters(release, {})}
"""


def ensemble_config(release: Release) -> str:
    """`config.pbtxt` of the ensemble. An ensemble takes neither instances, a queue nor a warm-up of its own."""
    side, classes = release.crop_px, len(release.classes)
    outputs = "\n".join(
        _tensor("output", name, "TYPE_FP32", (classes,)) for name in ("PROBABILITIES", *LOGITS.values())
    )
    steps = "\n".join(
        f"""  step {{
    model_name: "{member}"
    model_version: -1
    input_map {{ key: "CROPS" value: "CROPS" }}
    output_map {{ key: "LOGITS" value: "{LOGITS[member]}" }}
  }}"""
        for member in MEMBERS
    )
    fused = "\n".join(f'    input_map {{ key: "{name}" value: "{name}" }}' for name in LOGITS.values())
    return f"""name: "{ENSEMBLE}"
platform: "ensemble"
max_batch_size: {MAX_BATCH}
{_tensor("input", "CROPS", "TYPE_UINT8", (side, side, 3))}
{outputs}
response_cache {{ enable: false }}
ensemble_scheduling {{
{steps}
  step {{
    model_name: "{FUSION}"
    model_version: -1
{fused}
    output_map {{ key: "PROBABILITIES" value: "PROBABILITIES" }}
  }}
}}
{_parameters(release, {})}
"""
