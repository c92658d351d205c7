"""`morphbatch release compile`, `verify` and `lay-out`, `evaluate forms`: compiled forms of a release."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.cli.console import err, fail, out, print_json
from services.cli.options import JsonOption, finite
from services.cli.training import ExtraMissing, needs_extra

if TYPE_CHECKING:
    from triton_models.compile.proof import Proof

_Release = Annotated[
    Path, typer.Argument(metavar="RELEASE", help="Folder of the release.", exists=True, file_okay=False)
]
_Cells = Annotated[int, typer.Option(min=1, help="How many crops.")]


def compile_(
    release: _Release,
    target: Annotated[Literal["openvino-int8", "tensorrt", "tensorrt-rtx"], typer.Option(help="What to compile for.")],
    data: Annotated[
        Path | None, typer.Option(help="Class folders with images, or a CSV; required for int8.", exists=True)
    ] = None,
    calibrate: Annotated[list[str] | None, typer.Option(help="Splits that set the ranges; default: train.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="Splits that check the accuracy; default: val.")] = None,
    cells: _Cells = 300,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Largest drop of fused macro-F1 that is accepted.", callback=finite)
    ] = 0.005,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the form if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="For tensorrt: only show what would be run.")] = False,
    machine: Annotated[
        str | None, typer.Option(metavar="VERSION,GPU,CAPABILITY", help="The target machine, for --dry-run on another.")
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="For tensorrt-rtx: only this kind of GPU, such as 8.9; may be repeated. Default: all."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a release for other hardware, checked against its ONNX files; the release itself does not change.

    openvino-int8 is for CPUs, quantised on training crops and kept only if fused macro-F1 on validation crops drops by
    no more than --max-drop. tensorrt is built on the GPU that will serve it. tensorrt-rtx is built on any machine, for
    RTX GPUs and A100.
    """
    if compute_capability and target != "tensorrt-rtx":
        raise typer.BadParameter("only for tensorrt-rtx", param_hint="--compute-capability")
    if target == "tensorrt-rtx":
        if dry_run:
            raise typer.BadParameter("only for tensorrt", param_hint="--dry-run")
        document = _tensorrt_rtx(release, compute_capability, data, cells, replace)
    elif target == "tensorrt":
        document = _plan(release, machine) if dry_run else _tensorrt(release, data, cells, replace)
    elif data is None:
        raise typer.BadParameter("required for int8: labelled images, for training and validation", param_hint="--data")
    elif dry_run:
        raise typer.BadParameter(
            "only for tensorrt: NNCF runs in this process, there is no command to show", param_hint="--dry-run"
        )
    else:
        document = _int8(release, data, (calibrate or ["train"], check or ["val"]), cells, max_drop, replace)
    if as_json:
        print_json(document)
    elif dry_run:
        out.print("\n".join(["# " + line for line in document["steps"]]), highlight=False, soft_wrap=True)
        out.print("\n".join(document["commands"]), highlight=False, markup=False, soft_wrap=True)
    else:
        _print_changes(document["measured"])
        out.print(f"form {document['form']} in {document['folder']}", highlight=False)


def _int8(
    release: Path, data: Path, splits: tuple[list[str], list[str]], cells: int, max_drop: float, replace: bool
) -> dict[str, Any]:
    with needs_extra("train"):
        from triton_models.compile.int8 import Quantisation, compile_int8
    if set(splits[0]) & set(splits[1]):
        raise typer.BadParameter("a split that calibrates cannot also check", param_hint="--check")
    how = Quantisation(data, tuple(splits[0]), tuple(splits[1]), cells, max_drop)
    with _saying():
        form = compile_int8(release, how, replace=replace, say=_say)
    return {"folder": str(release / "forms" / form.form), **form.model_dump(mode="json")}


def _tensorrt(release: Path, data: Path | None, cells: int, replace: bool) -> dict[str, Any]:
    from triton_models.compile.tensorrt import Machine

    Machine.here()  # refuses before anything is read
    with needs_extra("train"):
        from triton_models.compile.proof import compile_and_prove_tensorrt
    form = compile_and_prove_tensorrt(release, data, cells, replace=replace, say=_say)
    return {"folder": str(release / "forms" / form.form), **form.model_dump(mode="json")}


def _tensorrt_rtx(
    release: Path, capabilities: list[str] | None, data: Path | None, cells: int, replace: bool
) -> dict[str, Any]:
    with needs_extra("rtx"):
        from triton_models.compile.proof import compile_and_prove_rtx
        from triton_models.compile.tensorrt_rtx import CAPABILITIES
    for capability in capabilities or ():
        if capability not in CAPABILITIES:
            raise typer.BadParameter(
                f"TensorRT-RTX compiles for {', '.join(CAPABILITIES)}, not {capability}",
                param_hint="--compute-capability",
            )
    chosen = [capability for capability in CAPABILITIES if capability in (capabilities or CAPABILITIES)]
    form = compile_and_prove_rtx(release, chosen, data, cells, replace=replace, say=_say)
    if (not_run := form.measured["on_gpu"].get("not_run")) is not None:
        err.print(f"[yellow]note[/]: the engines were not run: {not_run}", highlight=False)
    return {"folder": str(release / "forms" / form.form), **form.model_dump(mode="json")}


def _plan(release: Path, given: str | None) -> dict[str, Any]:
    from services.releases.schema import verify_release
    from triton_models.compile.tensorrt import Machine, MachineUnsuited, show_plan

    if given is not None:
        version, _, rest = given.partition(",")
        product, _, capability = rest.rpartition(",")
        machine: Machine | None = Machine(version.strip(), product.strip(), capability.strip())
    else:
        try:
            machine = Machine.here()
        except MachineUnsuited as error:
            err.print(f"[yellow]note[/]: {error}", highlight=False)
            machine = None
    return show_plan(release, verify_release(release, classes=None), machine)


def verify(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of a release; default: the active one.", exists=True, file_okay=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Images to compare on; default: drawn cells.", exists=True)] = None,
    cells: _Cells = 256,
    form: Annotated[
        list[str] | None, typer.Option(help="A form that must be verified on this machine; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of a release, and that each compiled form gives the logits of its ONNX files.

    In fp32 every logit must agree within 1e-3; int8 must give the same class after fusion for 98 % of the crops, fp16
    for 99 %. Comparing logits requires the `train` extra. For the active release, its copy in the object store and
    Triton's folder are checked too. Exits 1 if a form differs.
    """
    from services.releases.schema import verify_release
    from triton_models.forms.difference import FormDiffers

    active = folder is None
    if folder is None:
        from services.cli.release import releases_here

        releases = releases_here()
        folder = releases.registry.files(releases.verify())
    release = verify_release(folder, classes=None)
    try:
        with needs_extra("train"):
            from triton_models.compile.proof import prove_forms, require_proven
    except ExtraMissing as error:
        if not active or form:
            raise
        err.print(f"[yellow]note[/]: every byte is right; the logits were not compared: {error}", highlight=False)
        proofs: list[Proof] | None = None
    else:
        proofs = prove_forms(folder, data, cells, form or ())
    if as_json:
        print_json(
            {
                "id": release.id,
                "kind": release.kind,
                "whole": True,
                "forms": None if proofs is None else [proof.document() for proof in proofs],
            }
        )
    else:
        out.print(f"release {release.id} ({release.kind}) is complete and unaltered", highlight=False)
        _print_proofs(proofs or [])
    if proofs is not None:
        try:
            require_proven(release, proofs, form or ())
        except FormDiffers as error:
            fail(error.reason, str(error))
            raise typer.Exit(1) from error


def forms(
    release: _Release,
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Class folders with images, or a CSV.", exists=True)],
    form: Annotated[str, typer.Option(help="Compiled form to compare.")] = "openvino-int8",
    split: Annotated[list[str] | None, typer.Option(help="Only this split of the data; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timings of each.")] = 5,
    cells: _Cells = 256,
    as_json: JsonOption = False,
) -> None:
    """Compare a compiled form with fp32, in OpenVINO on this CPU: speed, in turns on the same crops, and accuracy."""
    from rich.table import Table

    from services.settings import load_settings
    from services.taxonomy import display_name

    with needs_extra("train"):
        from triton_models.compile.proof import compare_speed_and_accuracy
    found = compare_speed_and_accuracy(release, form, data, tuple(split or ()), rounds, cells, _say)
    if as_json:
        print_json(found)
        return
    table = Table("", found["against"], form, "ratio", "least", "most", box=None, header_style="bold")
    for network, ratio in found["speed_ratio"].items():
        speeds = (f"{found['crops_per_s'][which][network]['median']:.1f}" for which in (found["against"], form))
        table.add_row(network, *speeds, *(f"{ratio[which]:.2f}" for which in ("median", "min", "max")))
    out.print(f"crops per second on {found['cores']} cores")
    out.print(table)
    _print_changes(found)
    language = load_settings().language
    classes = Table("class", "F1 change", box=None, header_style="bold")
    for name, change in sorted(found["f1_change"].items(), key=lambda item: item[1]):
        classes.add_row(display_name(name, language), f"{change:+.4f}")
    out.print(classes)


def lay_out(
    release: _Release,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Folder of the model repository; an earlier one is replaced.", file_okay=False
        ),
    ],
    backend: Annotated[
        Literal["embedded", "openvino", "onnxruntime", "tensorrt"],
        typer.Option(help="Triton backend that runs the networks."),
    ] = "embedded",
    form: Annotated[str | None, typer.Option(help="Compiled form to use; default: the ONNX files.")] = None,
) -> None:
    """Write a release as a Triton model repository, also for the backends of Triton's official images."""
    from triton_models.layout.repository import lay_out_repository

    laid_out = lay_out_repository(release, folder, backend, form=form)
    out.print(f"release {laid_out.id} in {folder}", highlight=False)


def _say(what: str) -> None:
    err.print(what, highlight=False, markup=False)


@contextmanager
def _saying() -> Iterator[None]:
    """NNCF prints bars to stdout; stdout is for the answer."""
    import sys
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        yield


def _print_changes(measured: dict[str, Any]) -> None:
    from rich.table import Table

    if "macro_f1" not in measured:
        return
    table = Table("", "macro-F1, ONNX", "form", "change", "mean |Δ|", "same class", box=None, header_style="bold")
    for name, found in measured["macro_f1"].items():
        away = measured["difference"][name]
        table.add_row(
            name,
            *(f"{found['onnx']:.4f}", f"{found['form']:.4f}", f"{found['change']:+.4f}"),
            *(f"{away['mean_abs']:.4f}", f"{away['same_class']:.4f}"),
        )
    out.print(table)


def _print_proofs(proofs: "list[Proof]") -> None:
    from rich.table import Table

    table = Table("form", "of", "mean |Δ|", "largest |Δ|", "same class", "", box=None, header_style="bold")
    for proof in proofs:
        verdict = proof.fault or proof.not_run or f"verified on {proof.cells} crops"
        if not proof.differences:
            table.add_row(proof.form, "", "", "", "", verdict)
        for name, away in proof.differences.items():
            figures = (f"{away['mean_abs']:.2g}", f"{away['max_abs']:.2g}", f"{away['same_class']:.4f}")
            table.add_row(proof.form, name, *figures, verdict if name == "fused" else "")
    if proofs:
        out.print(table)
