"""`morphbatch watch`, `requeue` and `void`: follow a batch, run its slides again, take it out of every count."""

import getpass
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.console import err, out, print_json
from services.cli.options import BatchArgument, JsonOption, LabOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from services.batches.progress import BatchProgress
    from services.database.session import Engine

commands = typer.Typer()


POLL_S = 1.0


@commands.command()
def watch(batch: BatchArgument, lab: LabOption = None, as_json: JsonOption = False) -> None:
    """Follow a batch to its end: slides by state, cells, speed, time left, and what went wrong with which slides.

    Exits 0 only if the batch ended complete. With --json it prints the present state once.
    """
    from services.batches.progress import batch_progress, find_batch
    from services.database.session import make_engine
    from services.database.states import BatchState
    from services.settings import load_settings

    engine = make_engine(load_settings().database_url)
    batch_key = find_batch(engine, batch, lab)
    if as_json:
        print_json(as_document(batch_progress(engine, batch_key)))
        return
    if follow(engine, batch_key).state is not BatchState.COMPLETE:
        raise typer.Exit(1)


@commands.command()
def requeue(
    batch: BatchArgument,
    slide: Annotated[
        list[str] | None, typer.Option("--slide", help="A slide_id, whatever state it ended in; may be repeated.")
    ] = None,
    why: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for the report and the history; nothing about a person.")
    ] = None,
    lab: LabOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the quarantined slides of a batch again, or those named, after the cause was fixed.

    Each gets another version of its analysis. The one before stays on record, and counts until there is a new result.
    """
    from services.batches.progress import find_batch
    from services.batches.requeue import run_again
    from services.database.session import make_engine
    from services.dispatch import connect_publisher
    from services.settings import load_settings

    settings = load_settings()
    engine = make_engine(settings.database_url)
    done = run_again(
        engine,
        connect_publisher(settings.broker_url),
        find_batch(engine, batch, lab),
        slide or (),
        by=getpass.getuser(),
        why=why,
    )
    if done.unpublished:
        err.print(f"[yellow]note[/]: {done.unpublished}; the sweep publishes them when the broker is back")
    if as_json:
        print_json({"batch": batch, "requeued": done.slide_ids})
    else:
        out.print(f"requeued {len(done.slide_ids)} slides of {batch}: {', '.join(done.slide_ids)}")


@commands.command()
def void(
    batch: BatchArgument,
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the report and the audit; nothing about a person.")
    ],
    undo: Annotated[bool, typer.Option("--undo", help="Have a voided batch count again.")] = False,
    lab: LabOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a batch out of every count, such as one that was sent twice. Nothing is deleted.

    Its report goes out again within a minute, says so, and holds no figures; the one before is kept beside it.
    """
    from services.batches.progress import find_batch
    from services.batches.voiding import restore_batch, void_batch
    from services.database.session import make_engine
    from services.settings import load_settings

    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--why")
    engine = make_engine(load_settings().database_url)
    change = restore_batch if undo else void_batch
    change(engine, find_batch(engine, batch, lab), by=getpass.getuser(), why=why.strip())
    if as_json:
        print_json({"batch": batch, "voided": not undo, "why": why.strip()})
    else:
        out.print(f"{batch} {'counts again' if undo else 'is voided: nothing of it counts'}")


def follow(engine: "Engine", batch_key: int) -> "BatchProgress":
    """Show a live table of a batch until it is closed; returns how it ended. Without a terminal, only how it ended."""
    from contextlib import nullcontext

    from rich.live import Live

    from services.batches.progress import batch_progress
    from services.errors import OutageError

    progress = batch_progress(engine, batch_key)
    with Live(console=err, transient=True) if err.is_terminal else nullcontext() as live:
        while not progress.is_closed:
            time.sleep(POLL_S)
            try:
                progress = batch_progress(engine, batch_key)
            except OutageError as error:
                err.print(f"[yellow]{error}; still trying[/]")
                continue
            if live is not None:
                live.update(table_of(progress))
    err.print(table_of(progress))
    return progress


def table_of(progress: "BatchProgress") -> "RenderableType":
    """The batch as `watch` shows it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    states = "  ".join(f"{state} {n}" for state, n in progress.slides.items() if n)
    speed = progress.cells_per_second
    left = progress.seconds_left
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "batch",
        f"[bold]{progress.lab}/{progress.batch_id}[/]",
        f"[bold]{progress.state}[/]{' urgent' if progress.urgent else ''}",
    )
    facts.add_row("slides", ProgressBar(progress.total or 1, progress.ended, width=30), states)
    facts.add_row(
        "cells",
        f"{progress.cells}" + (f", {speed:.1f} per second" if speed else ""),
        "" if progress.is_closed or left is None else f"about {left / 60:.0f} min {left % 60:.0f} s left",
    )
    if progress.holds is not None and not progress.is_closed:
        facts.add_row("held", f"[yellow]{progress.holds}[/]", "")
    if not progress.troubled and not progress.problems:
        return facts
    trouble = Table(
        "slide", "state", "attempts", "reason", "what happened, and what to do", box=None, header_style="bold"
    )
    for slide in progress.troubled[:20]:
        trouble.add_row(slide.slide_id, slide.state, str(slide.attempts), f"[red]{slide.reason}[/]", slide.detail)
    return Group(facts, trouble, *(f"[red]rejected[/] {problem}" for problem in progress.problems[:20]))


def as_document(progress: "BatchProgress") -> dict[str, Any]:
    """The batch as `watch --json` prints it."""
    return {
        "lab": progress.lab,
        "batch": progress.batch_id,
        "state": progress.state,
        "urgent": progress.urgent,
        "held": progress.holds,
        "slides": progress.slides,
        "cells": progress.cells,
        "cells_per_second": progress.cells_per_second,
        "seconds": progress.seconds,
        "seconds_left": None if progress.is_closed else progress.seconds_left,
        "troubled": [
            {"slide": s.slide_id, "state": s.state, "attempts": s.attempts, "reason": s.reason, "detail": s.detail}
            for s in progress.troubled
        ],
        "problems": progress.problems,
    }
