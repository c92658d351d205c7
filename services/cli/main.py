"""Entry point: collects the commands of the modules beside it, and ends each by the one rule of exit codes.

| code | means |
|---|---|
| 0 | done |
| 1 | it ran, and the answer is "not good": a check failed, or the batch did not end complete |
| 2 | it could not be done: wrong usage, wrong input, wrong settings, or a service that is down |
| 130 | interrupted by Ctrl-C |

A command raises `typer.Exit(1)` for the second row; every error of ours and of the operating system is the third.
"""

import os
import sys

import typer

from services.cli import (
    batches,
    bench,
    deliveries,
    demo,
    evaluate,
    lab,
    lims_check,
    night,
    release,
    report,
    schedule,
    simulate,
    smears,
    sql,
    stack,
    submit,
    targets,
    training,
)
from services.cli.console import COULD_NOT, fail
from services.documents import why
from services.errors import MorphbatchError
from services.local.settings import home
from services.settings import HOME_VARIABLE

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Classify stained sperm cells overnight, in batches. Start with `morphbatch doctor`.",
    epilog="Exit codes: 0 done; 1 it ran, and the answer is 'not good'; 2 it could not be done.",
)
for module in (
    demo,
    stack,
    submit,
    lims_check,
    batches,
    schedule,
    night,
    report,
    sql,
    smears,
    training,
    evaluate,
    simulate,
):
    app.add_typer(module.commands)
app.add_typer(
    release.commands,
    name="release",
    help="Build, compile, publish and activate releases of the networks; apply a new fusion to old cells.",
)
lab.commands.add_typer(targets.commands)
app.add_typer(
    lab.commands,
    name="lab",
    help="The labs: time zones, when slides are started, tokens for the HTTP service, keys, where results go.",
)
app.add_typer(deliveries.commands, name="deliveries", help="Show what waits to be delivered to a LIMS; send it again.")
app.add_typer(bench.commands, name="bench", help="Measure the speed of the service on this machine.")


def main() -> None:
    """Run the command line; what cannot be done ends it with one message on stderr, and never with a traceback."""
    try:
        # Whoever reads the service's settings, here or in a process started here, finds those of this home.
        os.environ[HOME_VARIABLE] = str(home())
        code = app(prog_name="morphbatch", standalone_mode=False)
    except MorphbatchError as error:
        code = fail(error.reason, str(error))
    except typer.TyperException as error:
        code = _misused(error)
    except typer.Abort:
        code = fail("aborted", "nothing was answered")
    except OSError as error:
        code = fail("system", f"{error.filename}: {why(error)}" if error.filename else why(error))
    except UnicodeError as error:
        code = fail("encoding", f"not UTF-8 text: {error}")
    sys.exit(code)


def _misused(error: typer.TyperException) -> int:
    """A command line that names no command, or an option that is not one. The help has been printed where it is due."""
    context = getattr(error, "ctx", None)
    asked = f"; see `{context.command_path} --help`" if context else ""
    message = error.format_message().strip().removesuffix(".")
    return fail("usage", message + asked) if message else COULD_NOT


if __name__ == "__main__":
    main()
