"""`morphbatch deliveries`: what is on its way to a LIMS, and what is stopped."""

import getpass
from typing import Annotated

import typer

from services.cli.console import out, print_json
from services.cli.options import JsonOption

commands = typer.Typer(invoke_without_command=True)

NumbersArgument = Annotated[list[int], typer.Argument(metavar="NUMBER…", help="Numbers of stopped deliveries.")]


@commands.callback()
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the deliveries that are stopped or wait, with what the target said last. Exits 1 if any is stopped."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from rich.table import Table

    from services.database.session import make_engine
    from services.deliveries.by_hand import deliveries
    from services.settings import load_settings

    found = deliveries(make_engine(load_settings().database_url))
    if as_json:
        print_json([asdict(row) for row in found])
    elif not found:
        out.print("nothing waits to be delivered, and nothing is stopped")
    else:
        table = Table("number", "lab", "to", "what", "state", "attempts", "what it said", box=None, header_style="bold")
        for row in found:
            what = f"{row.batch_id} revision {row.revision}: {row.file}"
            to = f"{row.kind} {row.address}"
            table.add_row(str(row.delivery_id), row.lab, to, what, row.state, str(row.attempts), row.answer or "")
        out.print(table)
    if any(row.state == "stopped" for row in found):
        raise typer.Exit(1)


@commands.command()
def targets(as_json: JsonOption = False) -> None:
    """List where results are delivered to (`morphbatch lab deliver` sets it), and how many wait for each."""
    from dataclasses import asdict

    from rich.table import Table

    from services.database.session import make_engine
    from services.deliveries.targets import targets as all_targets
    from services.settings import load_settings

    found = all_targets(make_engine(load_settings().database_url))
    if as_json:
        print_json([asdict(row) for row in found])
        return
    table = Table("lab", "kind", "address", "waiting", "stopped", "", box=None, header_style="bold")
    for row in found:
        ended = "" if row.active else "nothing new"
        table.add_row(row.lab, row.kind, row.address, str(row.waiting), str(row.stopped), ended)
    out.print(table)


@commands.command()
def retry(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="NUMBER…", help="Numbers of stopped deliveries; default: all.")
    ] = None,
) -> None:
    """Send stopped deliveries again, the same bytes, before whatever waits behind them."""
    from services.database.session import make_engine
    from services.deliveries.by_hand import resend
    from services.settings import load_settings

    sent = resend(make_engine(load_settings().database_url), numbers or [], by=getpass.getuser())
    out.print(f"{len(sent)} deliveries are sent again within seconds", highlight=False)


@commands.command()
def drop(
    numbers: NumbersArgument,
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit; nothing about a person.")],
) -> None:
    """Give stopped deliveries up: they are never sent."""
    from services.database.session import make_engine
    from services.deliveries.by_hand import drop as give_up
    from services.settings import load_settings

    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--why")
    give_up(make_engine(load_settings().database_url), numbers, by=getpass.getuser(), why=why.strip())
    out.print(f"{len(numbers)} deliveries are given up", highlight=False)
