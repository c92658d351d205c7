"""`tensorrt-…`: FP16 engines, built by NVIDIA's `trtexec` on the GPU that will serve them, and by nothing else.

The release's ONNX files → fp32.onnx (stored weights unfolded) → fp16.onnx (NVIDIA Model Optimizer's AutoCast; crops
stay UINT8, logits FP32) → an engine. Run it in the official Triton image whose tag will serve: an engine is bound to
the exact TensorRT version and the GPU ("TensorRT Documentation, Engine Compatibility"). What stands behind each flag:

- Precision is in the ONNX file: TensorRT 11 removed weak typing, and with it `--fp16` ("Migrating from TensorRT 10.x to
  11.x: trtexec"). `--stronglyTyped` is required up to 10.16 and does nothing after.
- UINT8 is taken as a network input only, and only by Cast ("TensorRT Operators: Cast", onnx-tensorrt operators.md): the
  release's ONNX files begin with one.
- `--minShapes`, `--optShapes`, `--maxShapes`: one optimisation profile ("Working with Dynamic Shapes").
- `--timingCacheFile`: a second build of the same layers on the same GPU and version is quick.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError
from services.releases.schema import MEMBERS, FileDigest, Release
from triton_models.forms.form import Form, Profile, digests, form_folder, new_form, onnx_hashes, write_form

PROFILE: Final = Profile(least=1, best=32, most=64)
PRECISION: Final = "fp16"
_HALVED: Final = "fp16 from the first convolution on"  # what `half_precision` does; of another, engines are others
_BUILD: Final = (
    "--stronglyTyped", "--memPoolSize=workspace:4096", "--builderOptimizationLevel=3", "--skipInference",
)  # fmt: skip
_IN_THE_IMAGE: Final = Path("/usr/src/tensorrt/bin/trtexec")
_WHERE: Final = (
    "run this on the GPU that will serve, in NVIDIA's tritonserver image of the tag that will serve (-py3), after"
    " `pip install 'morphbatch[train]'` there; --dry-run shows the commands"
)


class MachineUnsuited(ConfigurationError):
    """TensorRT engines cannot be built or run here, or an engine is of another machine."""

    reason = "machine_unsuited"


class EngineFailed(ConfigurationError):
    """A program of NVIDIA failed; nothing was written."""

    reason = "engine_failed"


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine is bound to: the exact TensorRT version, the GPU product, and its compute capability."""

    tensorrt: str
    product: str
    compute_capability: str

    @classmethod
    def here(cls) -> Self:
        """This machine, as `nvidia-smi` and `trtexec` say.

        Raises:
            MachineUnsuited: one of them is missing or does not say; the message says where to run this.
        """
        trtexec = find_trtexec()
        asked = _output([_found("nvidia-smi"), "--query-gpu=name,compute_cap", "--format=csv,noheader"])
        gpus = sorted({line.strip() for line in asked.splitlines() if line.strip()})
        if len(gpus) != 1:
            raise MachineUnsuited(
                f"nvidia-smi lists {', '.join(gpus) or 'no GPU'}: engines are of one kind of GPU; choose one with"
                " CUDA_VISIBLE_DEVICES and a container that sees no other"
            )
        product, _, capability = gpus[0].rpartition(",")
        return cls(version_of(_output([trtexec, "--help"])), product.strip(), capability.strip())


def find_trtexec() -> str:
    """The path of `trtexec`, from PATH or where NVIDIA's images keep it.

    Raises:
        MachineUnsuited: it is in neither.
    """
    if os.access(_IN_THE_IMAGE, os.X_OK) and shutil.which("trtexec") is None:
        return str(_IN_THE_IMAGE)
    return _found("trtexec")


def version_of(said: str) -> str:
    """The TensorRT version in what `trtexec` prints: `TensorRT version: 11.2.1`, or `[TensorRT v110201]`.

    Raises:
        MachineUnsuited: there is none.
    """
    if plain := re.search(r"TensorRT version: (\d+\.\d+\.\d+)", said):
        return plain[1]
    if packed := re.search(r"TensorRT v(\d{5,6})\b", said):  # major · 10000 + minor · 100 + patch, since 10.0
        number = int(packed[1])
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    raise MachineUnsuited(f"trtexec does not state its version: {said[:200]!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """The commands that make the engines of a release for a machine. Paths are as they will stand when they run."""

    release: Release
    machine: Machine
    release_dir: Path
    work: Path
    out: Path
    timing_cache: Path
    trtexec: str = "trtexec"

    @property
    def form_name(self) -> str:
        """The name of the form: one a TensorRT version and GPU product."""
        product = re.sub(r"[^0-9a-z]+", "-", self.machine.product.lower()).strip("-")
        return f"tensorrt-{PRECISION}-{self.machine.tensorrt}-{product}"

    def key(self, member: str) -> str:
        """What an engine depends on, as 64 hex digits: with any of it changed, the engine is another."""
        return engine_key(onnx_hashes(self.release)[member], self.machine, _HALVED, PROFILE, self.flags)

    def engine(self, member: str) -> str:
        """Path of the engine within the form: ONNX hash, TensorRT version, compute capability, and the key."""
        onnx = onnx_hashes(self.release)[member][:12]
        capability = self.machine.compute_capability.replace(".", "")
        return f"{member}/{onnx}-trt{self.machine.tensorrt}-sm{capability}-{self.key(member)[:8]}.plan"

    @property
    def flags(self) -> tuple[str, ...]:
        """What is passed to trtexec, but for paths."""
        side = self.release.crop_px
        shapes = zip(("min", "opt", "max"), (PROFILE.least, PROFILE.best, PROFILE.most), strict=True)
        return (*_BUILD, *(f"--{which}Shapes=CROPS:{batch}x{side}x{side}x3" for which, batch in shapes))

    def build(self, member: str) -> list[str]:
        """The command that makes the engine of fp16.onnx."""
        return [
            self.trtexec, f"--onnx={self.work / member / 'fp16.onnx'}",
            f"--saveEngine={self.out / self.engine(member)}", f"--timingCacheFile={self.timing_cache}",
            *self.flags,
        ]  # fmt: skip


def engine_key(onnx_sha256: str, machine: Machine, precision: str, profile: Profile, flags: Sequence[str]) -> str:
    """SHA-256 over all that an engine depends on."""
    parts = [onnx_sha256, asdict(machine), precision, profile.model_dump(), sorted(flags)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cache_folder(machine: Machine) -> Path:
    """Where timing caches of a machine's kind are kept between builds."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "morphbatch" / "tensorrt" / hashlib.sha256(repr(machine).encode()).hexdigest()[:16]


def compile_tensorrt(
    release_dir: Path,
    release: Release,
    prove: Callable[[Path, Form], dict[str, Any]],
    *,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Form:
    """Build both engines for this machine and write them as a form of the release in `release_dir`.

    Args:
        release_dir: a verified release.
        release: its document.
        prove: runs the new form, in the folder it is given, and returns what is to stand in `measured`; raises if it
            differs from the ONNX files by too much.
        replace: write over a form of the same name.
        say: called with each command.

    Raises:
        MachineUnsuited: this is no machine to build on.
        EngineFailed: a program failed; the message has the end of what it said.
    """
    from triton_models.compile.half_precision import write_half

    machine, trtexec = Machine.here(), find_trtexec()
    cache = cache_folder(machine)
    cache.mkdir(parents=True, exist_ok=True)
    named = Plan(release, machine, release_dir, Path(), Path(), cache / "timing.cache", trtexec)
    with TemporaryDirectory() as scratch, new_form(release_dir, named.form_name, replace=replace) as out:
        work = Path(scratch)
        plan = Plan(release, machine, release_dir, work, out, cache / "timing.cache", trtexec)
        for member in MEMBERS:
            write_half(release_dir / release.members[member].onnx, work / member / "fp16.onnx")
            (out / member).mkdir()
            command = plan.build(member)
            say(" ".join(command))
            _output(command, EngineFailed)
        form = _document(plan, digests(out))
        return write_form(out, form.model_copy(update={"measured": prove(out, form)}))


def show_plan(release_dir: Path, release: Release, machine: Machine | None) -> dict[str, Any]:
    """What `compile_tensorrt` would run, without running it: as JSON values. `machine` None: not known, so named so."""
    machine = machine or Machine("TENSORRT_VERSION", "GPU", "CAPABILITY")
    folder = Path("WORK")
    trtexec = str(_IN_THE_IMAGE) if shutil.which("trtexec") is None else "trtexec"
    plan = Plan(release, machine, release_dir, folder, folder / "out", cache_folder(machine) / "timing.cache", trtexec)
    return {
        "form": plan.form_name,
        "machine": asdict(machine),
        "keys": {member: plan.key(member) for member in MEMBERS},
        "engines": {member: plan.engine(member) for member in MEMBERS},
        "steps": [
            *(
                f"{folder / member / 'fp16.onnx'}: {release_dir / release.members[member].onnx}, {_HALVED}"
                for member in MEMBERS
            ),
            f"then the commands, and a proof of the logits; then {folder / 'out'} becomes"
            f" {form_folder(release_dir, plan.form_name)}",
        ],
        "commands": [shlex.join(plan.build(member)) for member in MEMBERS],
    }


def require_machine(form: Form, release: Release, machine: Machine) -> None:
    """Refuse engines that were built on another kind of machine than `machine`, or otherwise.

    Raises:
        MachineUnsuited: says what differs and what to do.
    """
    plan = Plan(release, machine, Path(), Path(), Path(), Path())
    wanted = {**asdict(machine), **{f"key.{member}": plan.key(member) for member in MEMBERS}}
    differing = [
        f"{name} {form.machine.get(name)} instead of {value}"
        for name, value in wanted.items()
        if form.machine.get(name) != value
    ]
    if differing:
        raise MachineUnsuited(
            f"form {form.form} was built for another machine or by other flags ({'; '.join(differing)}): build one here"
            " with `morphbatch release compile RELEASE --target tensorrt`"
        )


def run_form(
    release_dir: Path, release: Release, form: Form, crops: NDArray[np.uint8], folder: Path | None = None
) -> dict[str, NDArray[np.float32]]:
    """Logits `[N, C]` of both engines for `crops`, by `trtexec --loadEngine`, in batches of at most the profile's.

    Raises:
        MachineUnsuited: not here, or the engines are of another machine.
        EngineFailed: trtexec failed.
    """
    require_machine(form, release, Machine.here())
    folder = folder or form_folder(release_dir, form.form)
    return {member: _run_engine(folder / form.members[member], crops) for member in MEMBERS}


def _run_engine(engine: Path, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = []
    with TemporaryDirectory() as scratch:
        given, answer = Path(scratch) / "crops.bin", Path(scratch) / "logits.json"
        for start in range(0, len(crops), PROFILE.most):
            part = np.ascontiguousarray(crops[start : start + PROFILE.most])
            given.write_bytes(part.tobytes())
            shape = "x".join(map(str, part.shape))
            command = [
                find_trtexec(), f"--loadEngine={engine}", f"--loadInputs=CROPS:{given}", f"--shapes=CROPS:{shape}",
                f"--exportOutput={answer}", "--iterations=1", "--warmUp=0", "--duration=0",
            ]  # fmt: skip
            _output(command, EngineFailed)
            tensors = {tensor["name"]: tensor["values"] for tensor in json.loads(answer.read_text(encoding="utf-8"))}
            parts.append(np.array(tensors["LOGITS"], np.float32).reshape(len(part), -1))
    return np.concatenate(parts)


def _document(plan: Plan, files: dict[str, FileDigest]) -> Form:
    release = plan.release
    return Form(
        form=plan.form_name,
        target="tensorrt",
        precision=PRECISION,
        created=datetime.now(UTC),
        release_id=release.id,
        classes=release.classes,
        crop_px=release.crop_px,
        onnx=onnx_hashes(release),
        tool="trtexec",
        versions={"tensorrt": plan.machine.tensorrt},
        profile=PROFILE,
        machine={**asdict(plan.machine), **{f"key.{member}": plan.key(member) for member in MEMBERS}},
        members={member: plan.engine(member) for member in MEMBERS},
        files=files,
        measured={},
    )


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MachineUnsuited(f"{program} is not installed: {_WHERE}")
    return path


def _output(command: Sequence[str], error: type[ConfigurationError] = MachineUnsuited) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise error(f"{command[0]} failed ({done.returncode}): {(done.stdout + done.stderr)[-800:].strip()}")
    return done.stdout + done.stderr
