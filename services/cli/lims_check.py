"""`morphbatch lims-check`: the checklist for a LIMS, run against an installation."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.console import err, out, print_json
from services.cli.options import JsonOption

commands = typer.Typer()


@commands.command(name="lims-check")
def lims_check(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the HTTP service.")],
    token_file: Annotated[
        Path,
        typer.Option("--token-file", metavar="FILE", help="File that holds a token with the scopes upload and read."),
    ],
    wait: Annotated[
        float,
        typer.Option("--wait", min=1, max=7200, help="Seconds for which the batch may take to come in, and to end."),
    ] = 300,
    as_json: JsonOption = False,
) -> None:
    """Run the checklist of docs/integration.md against an installation. It sends a batch of two white images."""
    from dataclasses import asdict

    from services.client.conformance import Checklist
    from services.client.submit import read_token

    done = []
    for check in Checklist(url, read_token(token_file), wait_s=wait).run():
        done.append(check)
        if not as_json:
            mark = {True: "ok", False: "NOT OK", None: "n/a"}[check.passed]
            out.print(
                f"{mark:6} {check.name}{f': {check.seen}' if check.seen else ''}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
    if as_json:
        print_json([asdict(check) for check in done])
    failed = sum(check.passed is False for check in done)
    if failed:
        err.print(f"{failed} of {len(done)} checks failed", highlight=False)
        raise typer.Exit(1)
