"""`morphbatch lab`: the labs on record, their time zones, and which of them test."""

import getpass
from typing import Annotated

import typer

from services.cli.console import out, print_json
from services.cli.options import JsonOption

commands = typer.Typer(no_args_is_help=True)


@commands.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """List the labs, their time zones, how many batches each has sent, and which of them test."""
    from dataclasses import asdict

    from rich.table import Table

    from services.database.session import make_engine
    from services.intake.labs import labs
    from services.settings import load_settings

    found = labs(make_engine(load_settings().database_url))
    if as_json:
        print_json([asdict(row) for row in found])
        return
    table = Table("lab", "time zone", "batches", "tests", box=None, header_style="bold")
    for row in found:
        table.add_row(row.lab, row.time_zone, str(row.batches), "yes" if row.tests else "")
    out.print(table)


@commands.command(name="set")
def set_(
    lab: Annotated[str, typer.Argument(metavar="LAB", help="The lab's code, the first folder under incoming/.")],
    time_zone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="IANA name of its time zone, such as Europe/Berlin.", show_default=False),
    ] = None,
    testing: Annotated[
        bool | None,
        typer.Option(
            "--testing/--no-testing",
            help="Send its LIMS the results of any release, marked as test data; else only those of trained ones.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Set the time zone by whose clock a lab's days, nights and months begin; those of earlier batches move with it.

    It may be set before the lab sends its first batch. Until it is set, days are those of UTC.
    """
    from services.database.session import make_engine
    from services.intake.labs import set_lab_tests, set_time_zone
    from services.settings import load_settings

    if time_zone is None and testing is None:
        raise typer.BadParameter("say what to set: --time-zone ZONE, --testing or --no-testing")
    engine = make_engine(load_settings().database_url)
    if time_zone is not None:
        before = set_time_zone(engine, lab, time_zone, by=getpass.getuser())
        out.print(f"days of lab {lab} begin by the clock of {time_zone}; before: {before}", highlight=False)
    if testing is not None:
        set_lab_tests(engine, lab, testing, by=getpass.getuser())
        sent = "of any release, marked as test data" if testing else "of trained releases only"
        out.print(f"results {sent}, go out to the LIMS of lab {lab}", highlight=False)
