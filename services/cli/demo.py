"""`morphbatch demo`: a whole night on this machine, from drawn smears to the morning's summary."""

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.console import err, out, program

if TYPE_CHECKING:
    from services.database.session import Engine
    from services.settings import Settings

    Deliveries = dict[tuple[str, str], Path]  # (lab, batch): the folder that was delivered

commands = typer.Typer()

LABS = ("north-clinic", "south-clinic")
BATCHES_A_LAB = 2
CELLS_A_FIELD = 33  # some are not found, or too near to the border to count: ten fields have over 200 that do


@commands.command()
def demo(
    stop: Annotated[bool, typer.Option("--stop/--keep", help="Stop the stack at the end, or leave it up.")] = True,
    slides: Annotated[int, typer.Option(help="Slides per batch.", min=1)] = 2,
    fields: Annotated[int, typer.Option(help="Fields per slide.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the drawn smears.")] = 1,
) -> None:
    """Run a night: start the stack, draw 2 labs × 2 batches of smears, submit them as a LIMS does, show the results."""
    from services.local.settings import home
    from services.settings import load_settings

    started = time.monotonic()
    _step("starting the stack")
    _morphbatch("up")
    load_settings.cache_clear()  # `up` wrote where its services listen
    night = home() / "demo" / time.strftime("%Y%m%d-%H%M%S")
    batches: dict[tuple[str, str], Path] = {}
    for lab in LABS:
        for number in range(1, BATCHES_A_LAB + 1):
            batch = f"night-{night.name}-{number}"
            folder = night / lab / str(number)
            _step(f"{lab}: drawing and uploading {batch}")
            _morphbatch(
                *("smears", str(folder), "--slides", str(slides), "--fields", str(fields)),
                *("--cells", str(CELLS_A_FIELD), "--seed", str(seed * 100 + len(batches))),
                *("--lab", lab, "--batch", batch),
            )
            _morphbatch("submit", str(folder), "--lab", lab, "--batch", batch)
            batches[lab, batch] = folder
    _step("analysing")
    settings = load_settings()
    complete = _follow_all(settings, batches)
    _summary(settings, batches, time.monotonic() - started)
    if stop:
        _step("stopping the stack (--keep leaves it up)")
        _morphbatch("down")
    _show_what_next(next(iter(batches)), stopped=stop)
    if not complete:
        raise typer.Exit(1)


def _step(what: str) -> None:
    err.rule(f"[bold]{what}", align="left")


def _morphbatch(*arguments: str) -> None:
    """Run a command just as a user types it; its failure ends the demo with its exit code."""
    done = subprocess.run([sys.executable, "-m", "services.cli.main", *arguments], check=False)
    if done.returncode:
        err.print(f"[red]`morphbatch {' '.join(arguments)}` failed[/]")
        raise typer.Exit(done.returncode)


def _follow_all(settings: "Settings", batches: "Deliveries") -> bool:
    from services.batches.progress import UnknownBatch, find_batch
    from services.cli.batches import follow
    from services.database.session import make_engine
    from services.database.states import BatchState

    engine = make_engine(settings.database_url)
    deadline = time.monotonic() + settings.sweep_seconds + 60
    complete = True
    for lab, batch in batches:
        while True:
            try:
                batch_key = find_batch(engine, batch, lab)
                break
            except UnknownBatch:  # neither the event nor the sweep has brought it in yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        complete &= follow(engine, batch_key).state is BatchState.COMPLETE
    engine.dispose()
    return complete


def _summary(settings: "Settings", batches: "Deliveries", seconds: float) -> None:
    from rich.table import Table

    from services.batches.progress import find_batch
    from services.database.session import make_engine, transaction
    from services.database.states import SlideState
    from services.releases.schema import ReleaseKind
    from services.reporting.reading import read_report

    _step("the morning's summary")
    engine = make_engine(settings.database_url)
    table = Table("lab", "batch", "state", "slides", "cells", "normal forms", box=None, header_style="bold")
    for lab, batch in batches:
        batch_key = find_batch(engine, batch, lab)
        with transaction(engine) as session:
            report = read_report(session, batch_key)
        normal = [slide.normal_forms for slide in report.slides if slide.normal_forms]
        cells = sum(share.cells_total for share in normal)
        share = f"{sum(share.cells for share in normal) / cells:.1%}" if cells else "–"
        short = report.summary.slides_by_state.get(SlideState.INSUFFICIENT, 0)
        slides = f"{report.summary.slides}" + (f", {short} of them insufficient" if short else "")
        table.add_row(lab, batch, report.state, slides, str(cells), share)
    release = report.release  # all batches were analysed under the active one
    out.print(f"[bold yellow]{report.warning}[/]" if report.warning else f"release {release and release.id}")
    out.print(table)
    if release and release.kind is not ReleaseKind.UNTRAINED:
        _agreement(engine, batches)
    engine.dispose()
    night = next(iter(batches.values())).parents[1]
    out.print(f"took {seconds:.0f} s; the drawn smears and their truth: {night}", soft_wrap=True)


def _show_what_next(first: tuple[str, str], *, stopped: bool) -> None:
    """The commands with which a reader goes on, as they work from here."""
    lab, batch = first
    command = program()
    lines = [f"start:   {command} up"] if stopped else []
    lines += [
        f"report:  {command} report {batch} --lab {lab}",
        f"files:   {command} report {batch} --lab {lab} --out DIR",
        f"SQL:     {command} sql 'select * from reporting.slide_result'",
        f"         {command} sql",
    ]
    if not stopped:
        lines.append(f"stop:    {command} down")
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def _agreement(engine: "Engine", batches: "Deliveries") -> None:
    """How well the classes agree with what was drawn."""
    from rich.table import Table

    from services.batches.progress import find_batch
    from services.evaluation.service import score_service
    from services.settings import load_settings
    from services.taxonomy import display_name

    found = score_service(engine, {find_batch(engine, batch, lab): folder for (lab, batch), folder in batches.items()})
    out.print(
        f"against the drawn truth: {found.matched + found.not_counted} of {found.cells} whole cells found,"
        f" {found.not_counted} of them not counted, {found.false} false finds"
    )
    columns = {"macro-F1": found.macro_f1}
    columns |= {f"{mix} mix": values for mix, values in found.macro_f1_by_mix.items()}
    table = Table("", "accuracy", *columns, box=None, header_style="bold")
    for name, accuracy in found.accuracy.items():
        scores = (values[name] for values in columns.values())
        shown = ("–" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(name, "–" if accuracy is None else f"{accuracy:.1%}", *shown)
    out.print(table)
    language = load_settings().language
    weakest = ", ".join(
        f"{display_name(n, language)} {f1:.2f}"
        for n, f1 in sorted(found.f1_by_class.items(), key=lambda item: item[1])[:3]
    )
    out.print(f"ECE {found.ece} ({found.ece_if_calibrated} expected by chance); weakest classes: {weakest}")
