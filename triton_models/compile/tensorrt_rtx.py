"""`tensorrt-rtx-fp16`: both networks compiled by TensorRT-RTX, on any machine, for RTX GPUs. Needs the `rtx` extra.

TensorRT-RTX compiles in two steps: an engine for a choice of GPU generations, here and without a GPU; and its kernels
on the GPU that serves, when they are first used. Sources, of NVIDIA's documentation of TensorRT for RTX:

- "CPU-Only AOT and TensorRT-RTX Engines": `set_compute_capability` a target; without it the GPU at hand is meant.
- Networks are strongly typed: precision is in the ONNX file (`half_precision`), as TensorRT itself wants since 11.0.
- UINT8 is taken as a network input only, and only by Cast: the release's ONNX files begin with one.
- "Version compatibility": an engine runs in the version of TensorRT-RTX that built it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import tensorrt_rtx_bindings as trt

from services.releases.schema import MEMBERS, Release
from triton_models.compile.half_precision import write_half
from triton_models.compile.tensorrt import EngineFailed
from triton_models.forms.form import (
    TENSORRT_RTX,
    Form,
    Profile,
    digests,
    new_form,
    onnx_hashes,
    write_form,
)

CAPABILITIES: Final = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Turing, A100, Ampere, Ada, Blackwell, GB10: what TensorRT-RTX compiles for. One engine for all is hardly larger."""
PROFILE: Final = Profile(least=1, best=64, most=256)
_PACKAGE: Final = "tensorrt-rtx-cu13-libs"
_FILE: Final = "model.engine"


@dataclass(frozen=True, slots=True)
class Built:
    """What was built of one network. `inputs` and `outputs`: type and shape by name; -1 is open."""

    inputs: dict[str, tuple[str, list[int]]]
    outputs: dict[str, tuple[str, list[int]]]
    batches: list[int]
    layers: int
    warnings: list[str]


class _Log(trt.ILogger):  # type: ignore[misc, unused-ignore]  # its types are not there where mypy runs
    """Keeps what the parser and the builder complain of."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)
        elif severity == trt.ILogger.WARNING:
            self.warnings.append(message)


def compile_rtx(
    release_dir: Path,
    release: Release,
    capabilities: Sequence[str],
    prove: Callable[[dict[str, Path], Path, Form], dict[str, Any]],
    *,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Form:
    """Build both engines and write them as the form `tensorrt-rtx-fp16` of the release in `release_dir`.

    Args:
        release_dir: a verified release.
        release: its document.
        capabilities: of `CAPABILITIES`, the GPUs that it is to run on.
        prove: is given each member's FP16 ONNX file, the new form's folder and the form, and returns what is to stand
            in `measured`; raises if it differs from the ONNX files by too much.
        replace: write over one that is there.
        say: called with what is being done.

    Raises:
        EngineFailed: TensorRT-RTX cannot compile a network; the message has what it said.
        AlreadyThere: the form exists, and `replace` is not set.
    """
    with TemporaryDirectory() as scratch, new_form(release_dir, TENSORRT_RTX, replace=replace) as out:
        halves = {member: Path(scratch) / f"{member}.onnx" for member in MEMBERS}
        built = {}
        for member, half in halves.items():
            say(f"{member}: an engine for compute capabilities {', '.join(capabilities)}")
            write_half(release_dir / release.members[member].onnx, half)
            (out / member).mkdir()
            built[member] = build_engine(half, out / member / _FILE, release.crop_px, capabilities)
            for warning in built[member].warnings:
                say(f"{member}: {warning}")
        form = Form(
            form=TENSORRT_RTX,
            target="tensorrt-rtx",
            precision="fp16",
            created=datetime.now(UTC),
            release_id=release.id,
            classes=release.classes,
            crop_px=release.crop_px,
            onnx=onnx_hashes(release),
            tool="tensorrt_rtx_bindings.Builder",
            versions={_PACKAGE: version(_PACKAGE)},
            profile=PROFILE,
            machine={"tensorrt_rtx": version(_PACKAGE), "compute_capabilities": ",".join(capabilities)},
            members={member: f"{member}/{_FILE}" for member in MEMBERS},
            files=digests(out),
            measured={},
        )
        built_of = {member: asdict(found) for member, found in built.items()}
        return write_form(out, form.model_copy(update={"measured": {"built": built_of, **prove(halves, out, form)}}))


def build_engine(onnx: Path, target: Path, crop_px: int, capabilities: Sequence[str]) -> Built:
    """Compile the FP16 network `onnx` for crops of `crop_px` into the engine `target`.

    Raises:
        EngineFailed: it is not parsed or not built; the message has what TensorRT-RTX said.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, log).parse_from_file(str(onnx)):
        raise EngineFailed(f"TensorRT-RTX does not take {onnx.name}: {_said(log)}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shapes = [(batch, crop_px, crop_px, 3) for batch in (PROFILE.least, PROFILE.best, PROFILE.most)]
    profile.set_shape("CROPS", *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = len(capabilities)
    for place, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), place)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineFailed(f"TensorRT-RTX does not build {onnx.name}: {_said(log)}")
    target.write_bytes(engine)
    return Built(
        inputs=dict(_tensor(network.get_input(place)) for place in range(network.num_inputs)),
        outputs=dict(_tensor(network.get_output(place)) for place in range(network.num_outputs)),
        batches=[shape[0] for shape in profile.get_shape("CROPS")],
        layers=network.num_layers,
        warnings=log.warnings,
    )


def _tensor(tensor: Any) -> tuple[str, tuple[str, list[int]]]:
    return tensor.name, (tensor.dtype.name, list(tensor.shape))


def _said(log: _Log) -> str:
    return " ".join(log.errors)[-800:] or "nothing"
