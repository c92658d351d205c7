"""`morphbatch sql`: ask the database in SQL, in psql or with one query."""

import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.cli.console import out, print_json
from services.cli.options import JsonOption

if TYPE_CHECKING:
    from services.database.ask import Answer
    from services.settings import Settings

commands = typer.Typer()


@commands.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="SQL to run; default: open psql.", show_default=False)
    ] = None,
    role: Annotated[
        Literal["analyst", "service"],
        typer.Option(help="analyst: reads the views of schema reporting. service: reads the tables too."),
    ] = "analyst",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV to stdout and nothing else.")] = False,
) -> None:
    """Ask the database in SQL. A QUERY is answered with its rows and can change nothing; without one, psql is opened.

    docs/reports.md lists the views, such as reporting.slide_result.
    """
    from services.database.ask import ask
    from services.settings import load_settings

    if as_json and as_csv:
        raise typer.BadParameter("cannot be combined with --json", param_hint="--csv")
    if query is None and (as_json or as_csv):
        raise typer.BadParameter("required with --json and --csv", param_hint="QUERY")
    url = _url_of(role, load_settings())
    if query is None:
        _become_psql(url)
        return
    answer = ask(url, query)
    if as_json:
        print_json(answer.records())
    elif as_csv:
        _print_csv(answer)
    else:
        _print_table(answer)


def _url_of(role: str, settings: "Settings") -> str:
    from services.errors import ConfigurationError

    if role == "service":
        return settings.database_url
    if settings.analyst_url is None:
        raise ConfigurationError(
            "MORPHBATCH_ANALYST_URL is not set: give it the URL of a role that only reads schema reporting,"
            " or use --role service"
        )
    return settings.analyst_url


def _become_psql(url: str) -> None:
    """Replace this process by psql. The password goes through its environment, which nobody else can read."""
    from services.database.ask import psql_session
    from services.errors import ConfigurationError
    from services.local.postgres import binaries

    psql = shutil.which("psql")
    if psql is None:
        try:
            psql = str(binaries() / "psql")
        except ConfigurationError as error:
            raise ConfigurationError("psql is not installed: give the query as an argument") from error
    argument, password = psql_session(url)
    sys.stdout.flush()
    os.execve(psql, [psql, argument], {**os.environ, **password})  # noqa: S606 - found above


def _print_csv(answer: "Answer") -> None:
    import csv

    rows = csv.writer(out.file, lineterminator="\n")
    rows.writerow(answer.columns)
    rows.writerows(record.values() for record in answer.records())


def _print_table(answer: "Answer") -> None:
    from rich.markup import escape
    from rich.table import Table

    if not answer.columns:
        return
    table = Table(*map(escape, answer.columns), box=None, header_style="bold")
    for record in answer.records():
        table.add_row(*(escape(_text(value)) for value in record.values()))
    out.print(table)


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
