"""`morphbatch release reapply`: another fusion for old cells, from their stored logits, without running a network."""

import getpass
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.console import bars, err, out, print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from services.releases.reapply import Reapplication


def reapply(
    release: Annotated[str, typer.Option(metavar="ID", help="A published release of the same networks.")],
    since: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Slides received on or after this day, UTC.")],
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change and write nothing.")] = False,
    reports: Annotated[bool, typer.Option("--reports", help="Also rewrite the report files of these batches.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON to stdout and nothing else; writes only with --yes.")
    ] = False,
) -> None:
    """Recompute classes from stored logits under another release of the same networks, as new analyses of the slides.

    Shows how the count of each class changes, then asks. Earlier analyses stay on record; the new ones count.
    """

    from services.database.session import make_engine
    from services.releases.reapply import count_changes, plan_reapplication, write_reapplication
    from services.settings import load_settings

    engine = make_engine(load_settings().database_url)
    plan = plan_reapplication(engine, release, since.date())
    with bars() as progress:
        task = progress.add_task("counting", total=plan.cells)
        changes = count_changes(engine, plan, lambda cells: progress.advance(task, cells))
    outcome = _document(plan, since, changes)
    if not as_json:
        _show(plan, since, outcome)
    if plan.slides and not dry_run and (yes or (not as_json and typer.confirm("Write it?", err=True))):
        started = time.perf_counter()
        with bars() as progress:
            task = progress.add_task("writing", total=plan.cells)
            outcome["written_slides"] = write_reapplication(
                engine,
                plan,
                by=getpass.getuser(),
                rewrite_reports=reports,
                step=lambda cells: progress.advance(task, cells),
            )
        outcome["cells_per_second"] = round(plan.cells / (time.perf_counter() - started))
        err.print(
            f"{outcome['written_slides']} slides have a new analysis; {outcome['cells_per_second']} cells per second",
            highlight=False,
        )
        if left := plan.slides - outcome["written_slides"]:
            err.print(f"[yellow]note[/]: {left} slides were queued again meanwhile and were left out")
    elif plan.slides and not as_json:
        err.print("nothing was written")
    engine.dispose()
    if as_json:
        print_json(outcome)


def _document(plan: "Reapplication", since: datetime, changes: "NDArray[np.int64]") -> dict[str, Any]:
    from services.releases.reapply import by_class

    classes = by_class(changes)
    return {
        "release": plan.release.id,
        "since": since.date(),
        "from": plan.sources,
        "batches": plan.batches,
        "slides": plan.slides,
        "cells": plan.cells,
        "cells_moved": sum(change.moved_in for change in classes),
        "classes": [
            {
                "class_code": change.class_code,
                "before": change.before,
                "after": change.after,
                "moved_in": change.moved_in,
                "moved_out": change.moved_out,
            }
            for change in classes
        ],
        "written_slides": 0,
    }


def _show(plan: "Reapplication", since: datetime, outcome: dict[str, Any]) -> None:
    from rich.table import Table

    from services.settings import load_settings
    from services.taxonomy import class_named

    if not plan.slides:
        out.print(f"every slide since {since:%Y-%m-%d} already has its result from {plan.release.id}: nothing to do")
        return
    cells, language = max(plan.cells, 1), load_settings().language
    out.print(
        f"{plan.slides} slides of {plan.batches} batches since {since:%Y-%m-%d}, analysed under"
        f" {', '.join(plan.sources)}: {plan.cells} cells, {outcome['cells_moved']} of them"
        f" ({100 * outcome['cells_moved'] / cells:.1f} %) get another class",
        highlight=False,
    )
    table = Table("class", "before", "%", "after", "%", "moved in", "moved out", box=None, header_style="bold")
    for row in outcome["classes"]:
        shares = (f"{100 * row[when] / cells:.1f}" for when in ("before", "after"))
        table.add_row(
            class_named(row["class_code"]).display(language),
            str(row["before"]),
            next(shares),
            str(row["after"]),
            next(shares),
            str(row["moved_in"]),
            str(row["moved_out"]),
        )
    out.print(table)
