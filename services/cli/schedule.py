"""`morphbatch pause`, `resume` and `cancel`: hold slides back, let them go again, end a batch before its time."""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.console import out, print_json
from services.cli.options import BatchArgument, JsonOption

if TYPE_CHECKING:
    from services.database.session import Engine

commands = typer.Typer()

LabArgument = Annotated[str, typer.Argument(metavar="LAB", help="The lab's code.")]
OneBatch = Annotated[
    str | None, typer.Argument(metavar="[BATCH]", help="batch_id of the manifest; default: all batches of the lab.")
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for the audit; nothing about a person.")]


@commands.command()
def pause(lab: LabArgument, why: Why, batch: OneBatch = None, as_json: JsonOption = False) -> None:
    """Start no slide of a lab, or of one batch, until it is resumed; urgent ones neither. Slides that run go on."""
    from services.batches.pausing import pause_batch, pause_lab
    from services.batches.progress import find_batch

    by, why, engine = getpass.getuser(), _said(why), _engine()
    if batch is None:
        pause_lab(engine, lab, by=by, why=why)
    else:
        pause_batch(engine, find_batch(engine, batch, lab), by=by, why=why)
    _tell(lab, batch, "paused", as_json, "no slide of it is started; slides that run go on")


@commands.command()
def resume(lab: LabArgument, batch: OneBatch = None, as_json: JsonOption = False) -> None:
    """Have the slides of a paused lab, or of one batch, started again, within seconds."""
    from services.batches.pausing import resume_batch, resume_lab
    from services.batches.progress import find_batch

    by, engine = getpass.getuser(), _engine()
    if batch is None:
        resume_lab(engine, lab, by=by)
    else:
        resume_batch(engine, find_batch(engine, batch, lab), by=by)
    _tell(lab, batch, "resumed", as_json, "its slides are started again")


@commands.command()
def cancel(lab: LabArgument, batch: BatchArgument, why: Why, as_json: JsonOption = False) -> None:
    """End a batch before its time, for good: slides that wait are not started, those that run end, and count.

    Its report goes out with what there is. To take that out of every count too: `morphbatch void`.
    """
    from services.batches.cancelling import cancel_batch
    from services.batches.progress import find_batch

    why, engine = _said(why), _engine()
    slides = cancel_batch(engine, find_batch(engine, batch, lab), by=getpass.getuser(), why=why)
    _tell(lab, batch, "cancelled", as_json, f"{slides} slides are not started any more")


def _engine() -> "Engine":
    from services.database.session import make_engine
    from services.settings import load_settings

    return make_engine(load_settings().database_url)


def _said(why: str) -> str:
    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--why")
    return why.strip()


def _tell(lab: str, batch: str | None, done: str, as_json: bool, what: str) -> None:
    if as_json:
        print_json({"lab": lab, "batch": batch, "done": done})
    else:
        out.print(f"{lab if batch is None else f'{lab}/{batch}'} is {done}: {what}", highlight=False)
