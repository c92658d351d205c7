"""Options that several commands have, and what is checked of every number with a fraction."""

import math
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")]
LabOption = Annotated[
    str | None, typer.Option("--lab", help="The lab's code; only required where two labs use the same batch id.")
]
BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="batch_id of the manifest.")]


def finite(value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which no bound of an option keeps out: the callback of every option that is a float."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


MinimumOption = Annotated[
    float | None,
    typer.Option(
        "--minimum-crop-inside-share",
        min=0,
        max=1,
        help="A cell counts if so much of its crop lies in the field; 0: each does.",
        callback=finite,
    ),
]
