"""`morphbatch night`: last night in ten lines."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from services.cli.console import out, print_json
from services.cli.options import JsonOption

commands = typer.Typer()

_FARTHEST_EAST: Final = timedelta(hours=14)


@commands.command()
def night(
    date: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Evening of the night, YYYY-MM-DD; default: yesterday at each lab.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show last night in ten lines: complete or not, what is missing, why, and what to do.

    A night goes from noon to noon by the lab's clock (`morphbatch lab list`) and is named by its evening. Exits 0 only
    if batches were received and every one is complete.
    """
    from services.batches.night import read_night
    from services.database.session import make_engine
    from services.settings import load_settings

    now = datetime.now(UTC)
    if date is not None and date.date() > (now + _FARTHEST_EAST).date():
        raise typer.BadParameter(f"the night of {date:%Y-%m-%d} has not begun", param_hint="--date")
    engine = make_engine(load_settings().database_url)
    found = read_night(engine, now, date.date() if date else None)
    engine.dispose()
    if as_json:
        print_json({"complete": found.is_complete, **asdict(found), "missing": [str(batch) for batch in found.missing]})
    else:
        for label, words in found.lines():
            out.print(f"{label:8}{words}", markup=False, highlight=False, soft_wrap=True)
    if not found.is_complete:
        raise typer.Exit(1)
