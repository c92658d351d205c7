"""The text of each `config.pbtxt`. Every one carries the release and its form: a client can tell what it is served.

Of the backends, `embedded` is ours (`embedded_network` of `repository` on CPUs, `gpu_network` on a GPU); the others are
Triton's own, in the official images. What the text may say is in Triton's model_config.proto and in the READMEs of
openvino_backend, onnxruntime_backend and tensorrt_backend.
"""

from dataclasses import dataclass
from typing import Final

from services.releases.schema import MEMBERS, Release
from triton_models.forms.form import OPENVINO_FP32, TENSORRT_RTX, TORCH, Backend, Form, ServedForm

ENSEMBLE: Final = "sperm_morphology"
FUSION: Final = "logit_fusion"
MODELS: Final = (*MEMBERS, FUSION, ENSEMBLE)
MAX_BATCH: Final = 64
_MAX_BATCH_ON_GPU: Final = 256
DEFAULT_FORM: Final = ServedForm(OPENVINO_FP32)
_ON_GPU: Final = {TENSORRT_RTX: "rtx_network", TORCH: "torch_network"}  # the program of `repository/gpu_network`
LOGITS: Final = {member: f"{member.upper()}_LOGITS" for member in MEMBERS}


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the embedded backend uses the CPU, per member: sub-batches on a one-threaded stream a core (`streams` 0).

    Both networks at work on two cores take the same processor time a crop in sub-batches of 2, 4 or 8 (within 1 %).
    The last of a run of crops is filled up with black, so that requests should be a multiple of it.

    `max_queue_size` 0 bounds no queue: in the server of the wheel (Triton 2.51) a member that refuses a request of the
    ensemble, because its queue is full or its time in the queue is over, brings the whole server down with SIGSEGV or
    leaves the request hanging (fixed upstream in 2026: triton-inference-server/core #466 and #483). What bounds the
    work there is what each client may have in flight, and the clients' deadlines.
    """

    sub_batch: int = 4
    streams: int = 0
    max_queue_size: int = 0


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served by what."""

    release: Release
    backend: Backend = "embedded"
    served: ServedForm = DEFAULT_FORM

    @property
    def form(self) -> Form | None:
        """The form's document; None: it has no files."""
        return self.served.document

    @property
    def gpu_program(self) -> str | None:
        """The program of `repository/gpu_network` by which the embedded backend runs the form; None: on the CPU."""
        return _ON_GPU.get(self.served.name)

    def model_file(self, member: str) -> str:
        """Name of the file in the member's version folder that the backend opens."""
        path = self.release.members[member].onnx if self.form is None else self.form.members[member]
        return path.rpartition("/")[2]


def _parameters(serving: Serving, extra: dict[str, str]) -> str:
    release = serving.release
    values = {
        "release_id": release.id,
        "form": serving.served.name,
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


def member_config(serving: Serving, member: str, options: EmbeddedOptions) -> str:
    """`config.pbtxt` of a network."""
    side, classes = serving.release.crop_px, len(serving.release.classes)
    parts = [
        f'name: "{member}"',
        _backend(serving, member),
        f"max_batch_size: {_most(serving)}",
        _tensor("input", "CROPS", "TYPE_UINT8", (side, side, 3)),
        _tensor("output", "LOGITS", "TYPE_FP32", (classes,)),
        _instances(serving),
        _queue(options),
        "response_cache { enable: false }",
        f"""model_warmup {{
  name: "one_sub_batch"
  batch_size: {options.sub_batch}
  inputs {{ key: "CROPS" value {{ data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] random_data: true }} }}
}}""",
        _parameters(serving, _settings(serving, member, options)),
    ]
    return "\n".join(parts) + "\n"


def _backend(serving: Serving, member: str) -> str:
    file = serving.model_file(member)
    match serving.backend:
        case "embedded":
            return 'backend: "python"'
        case "openvino" | "onnxruntime":
            return f'backend: "{serving.backend}"\ndefault_model_filename: "{file}"'
        case "tensorrt":
            # No default_model_filename: Triton looks a GPU of another capability up as model.plan, and does not load.
            capability = "" if serving.form is None else serving.form.machine["compute_capability"]
            return f'backend: "tensorrt"\ncc_model_filenames {{ key: "{capability}" value: "{file}" }}'


def _instances(serving: Serving) -> str:
    """One: on a CPU it takes the threads; of a GPU, one a GPU.

    Triton's tensorrt backend overlaps copies with the kernels anyway. CUDA graphs take the launching of some hundred
    small kernels out of each batch; Triton captures them for 1, the batch sizes that it prefers and the largest, and
    the embedded backend captures its own.
    """
    if serving.backend == "tensorrt":
        return "instance_group { count: 1 kind: KIND_GPU }\noptimization { cuda { graphs: true } }"
    kind = "KIND_CPU" if serving.gpu_program is None else "KIND_GPU"
    return f"instance_group {{ count: 1 kind: {kind} }}"


def _most(serving: Serving) -> int:
    if serving.form is not None and serving.form.profile is not None:
        return serving.form.profile.most
    return MAX_BATCH if serving.gpu_program is None else _MAX_BATCH_ON_GPU


def _settings(serving: Serving, member: str, options: EmbeddedOptions) -> dict[str, str]:
    """The parameters that the backend reads.

    Triton's openvino backend has none that holds a CPU with bf16 units at fp32 (HINT_BF16 only asks for bf16).
    """
    match serving.backend:
        case "embedded" if serving.gpu_program is not None:
            return {"model_file": serving.model_file(member)}
        case "embedded":
            return {
                "model_file": serving.model_file(member),
                "sub_batch": str(options.sub_batch),
                "streams": str(options.streams),
            }
        case "openvino":
            streams = str(options.streams) if options.streams else "AUTO"
            return {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
        case "onnxruntime":
            return {"intra_op_thread_count": str(options.streams)}  # 0: a thread a core
        case "tensorrt":
            return {}


def fusion_config(serving: Serving, options: EmbeddedOptions) -> str:
    """`config.pbtxt` of the logit fusion."""
    classes = len(serving.release.classes)
    inputs = "\n".join(_tensor("input", LOGITS[member], "TYPE_FP32", (classes,)) for member in MEMBERS)
    return f"""name: "{FUSION}"
backend: "python"
max_batch_size: {_most(serving)}
{inputs}
{_tensor("output", "PROBABILITIES", "TYPE_FP32", (classes,))}
instance_group {{ count: 1 kind: KIND_CPU }}
{_queue(options)}
response_cache {{ enable: false }}
{_parameters(serving, {})}
"""


def ensemble_config(serving: Serving) -> str:
    """`config.pbtxt` of the ensemble. An ensemble takes neither instances, a queue nor a warm-up of its own."""
    side, classes = serving.release.crop_px, len(serving.release.classes)
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
max_batch_size: {_most(serving)}
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
{_parameters(serving, {})}
"""
