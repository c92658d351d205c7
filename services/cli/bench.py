"""`morphbatch bench`: what the service and its feed reach on this machine, as docs/performance.md shows it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.console import err, out, print_json
from services.cli.options import JsonOption, finite

if TYPE_CHECKING:
    from services.benchmark.deliveries import Fields

commands = typer.Typer(no_args_is_help=True)

_Repeats = Annotated[int, typer.Option(help="Measurements; their median and spread are shown.", min=1)]
_Limit = Annotated[int, typer.Option(help="Most fields to use.", min=1)]


@commands.command()
def e2e(
    fields: Annotated[
        Path | None,
        typer.Option(
            help="A folder of fields. Default: the shared real fields, else drawn ones.", exists=True, file_okay=False
        ),
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option("--um-per-px", help="Their scale; required with --fields.", callback=finite)
    ] = None,
    limit: _Limit = 128,
    repeats: _Repeats = 3,
    torch_env: Annotated[
        Path | None,
        typer.Option(
            "--torch-env", help="Environment with torch and timm; default: .venv-train.", exists=True, file_okay=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Crops per second of the whole service, of its networks in OpenVINO alone, and of a plain PyTorch loop."""
    from services.benchmark.deliveries import REAL_UM_PER_PX, drawn_fields, fields_of, real_fields_folder
    from services.benchmark.e2e import measure_e2e

    if fields is not None and um_per_px is None:
        raise typer.BadParameter("required with --fields", param_hint="--um-per-px")
    folder = fields or real_fields_folder()
    measured = (
        drawn_fields(_home(), min(limit, 64), 12, _drawing)
        if folder is None
        else fields_of(folder, um_per_px or REAL_UM_PER_PX, limit)
    )
    result = measure_e2e(_home() / "e2e", measured, repeats, torch_env, _tell)
    if as_json:
        print_json(result)
        return
    _heading(result, f"{_of(measured)}, {result['slides']} slides")
    for found in result["releases"]:
        _print_release(found)


def _print_release(found: dict[str, Any]) -> None:
    rows = [
        ("service", found["service"]["crops_per_s"]),
        ("networks alone", found["networks_alone"]["crops_per_s"]),
    ]
    if found["plain_loop"]:
        rows.append(("plain loop", found["plain_loop"]["crops_per_s"]))
    else:
        err.print(f"[yellow]no plain loop[/]: {found['plain_loop_missing']}")
    rows.append(("service ÷ networks alone", found["service_to_networks_alone"]))
    if found["service_to_plain_loop"]:
        rows.append(("service ÷ plain loop", found["service_to_plain_loop"]))
    what = f"{found['crops']} crops of {found['crop_px']} px; {found['release']} ({found['form']})"
    out.print(what, highlight=False, soft_wrap=True)
    _table("crops per second", rows)
    for name in ("stages_s", "cpu_s"):
        last = found["service"][name][-1]
        out.print(f"{name} of the last run: " + ", ".join(f"{k} {v:g}" for k, v in last.items()), highlight=False)


@commands.command()
def ensemble(
    release: Annotated[
        Path | None,
        typer.Argument(
            metavar="RELEASE", help="Folder of the release; default: the shipped one.", exists=True, file_okay=False
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a request.")] = 64,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Requests under way.")] = 8,
    crops: Annotated[int, typer.Option(min=1, help="Crops in a repeat; on a GPU take some 100,000.")] = 1024,
    repeats: _Repeats = 3,
    as_json: JsonOption = False,
) -> None:
    """Crops per second of the ensemble in Triton and of its networks alone, in the form that Triton serves here."""
    from services.benchmark.ensemble import measure_ensemble
    from services.local.settings import load_local_settings
    from triton_models.layout.served_here import SHIPPED

    result = measure_ensemble(
        _home() / "ensemble", release or SHIPPED, load_local_settings(),
        batch=batch, in_flight=in_flight, crops=crops, repeats=repeats, tell=_tell,
    )  # fmt: skip
    if as_json:
        print_json(result)
        return
    what = f"{result['crops']} crops of {result['crop_px']} px, {in_flight} × {batch} under way"
    _heading(result, f"{what}; {result['release']} ({result['form']})")
    rows = [(name, result[key]["crops_per_s"]) for name, key in (("ensemble", "ensemble"), ("alone", "networks_alone"))]
    _table("crops per second", [*rows, ("ensemble ÷ alone", result["ensemble_to_networks_alone"])])


@commands.command()
def feed(
    limit: _Limit = 240,
    cells: Annotated[int, typer.Option(help="Cells drawn per field, about.", min=1)] = 28,
    repeats: _Repeats = 3,
    as_json: JsonOption = False,
) -> None:
    """Fields and crops per second that one core prepares, with Triton answering a constant; fields are drawn."""
    from services.benchmark.deliveries import drawn_fields
    from services.benchmark.feed import SLIDES, measure_feed

    fields = drawn_fields(_home(), min(limit, max(60, -(-limit // SLIDES))), cells, _drawing)
    result = measure_feed(_home() / "feed", fields.repeated(limit), repeats, _tell)
    if as_json:
        print_json(result)
        return
    what = f"{result['cells_per_field']} cells found per field, crops of {result['crop_px']} px"
    _heading(result, f"{_of(fields)}, {what}")
    _table("per core", [("fields per second", result["fields_per_s"]), ("crops per second", result["crops_per_s"])])
    _table("milliseconds of CPU time per field", list(result["cpu_ms_per_field"].items()))
    _table("CPU time", [("all ÷ decoding", result["cpu_to_decode"])])


@commands.command()
def reapply(
    cells: Annotated[int, typer.Option(help="Cells in the database.", min=1000)] = 200_000,
    repeats: _Repeats = 3,
    as_json: JsonOption = False,
) -> None:
    """Cells per second that `morphbatch release reapply` counts and writes, in its own Postgres; logits are drawn."""
    from services.benchmark.reapply import measure_reapply

    result = measure_reapply(_home() / "reapply", cells, repeats, _tell)
    if as_json:
        print_json(result)
        return
    _heading(result, f"{result['cells']} cells of {result['slides']} slides")
    _table(
        "cells per second",
        [
            ("counting, before the question", result["counted_cells_per_s"]),
            ("the same, per core", result["counted_of_one_core_cells_per_s"]),
            ("written", result["written_cells_per_s"]),
            ("the same, per core", result["written_of_one_core_cells_per_s"]),
            ("counting and writing", result["both_cells_per_s"]),
            ("the same, per core", result["both_of_one_core_cells_per_s"]),
        ],
    )


def _home() -> Path:
    from services.local.settings import home

    return home() / "bench"


def _of(fields: "Fields") -> str:
    return f"{len(fields.paths)} fields ({fields.source}, {fields.um_per_px} µm/px)"


def _tell(what: str) -> None:
    err.print(what, highlight=False)


def _drawing(done: int, total: int) -> None:
    if done % 10 == 0:
        err.print(f"drawing fields: {done} of {total}", highlight=False)


def _heading(result: dict[str, Any], what: str) -> None:
    machine = result["machine"]
    gpus = "".join(f"{gpu}, " for gpu in machine["gpus"])
    out.print(
        f"{what}; {gpus}{machine['cores']} cores, {machine['processor']}, load before {machine['load_1_min']}",
        highlight=False,
        soft_wrap=True,
    )


def _table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    from rich.table import Table

    table = Table(title, "median", "least", "most", box=None, header_style="bold")
    for name, figure in rows:
        table.add_row(name, *(f"{figure[key]:.4g}" for key in ("median", "min", "max")))
    out.print(table)
