"""Entry point: collects the commands of the modules beside it and turns our errors into one clear line."""

import os
import sys

import typer

from services.cli import batches, bench, demo, evaluate, release, report, smears, stack, submit, training
from services.cli import reapply as refuse
from services.cli.console import err
from services.errors import MorphbatchError
from services.local.settings import home
from services.settings import HOME_VARIABLE

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Classify stained sperm cells overnight, in batches. Start with `morphbatch doctor`.",
)
for module in (demo, stack, submit, batches, report, refuse, smears, training, evaluate):
    app.add_typer(module.commands)
app.add_typer(release.commands, name="release", help="Build, publish, list and activate releases of the networks.")
app.add_typer(bench.commands, name="bench", help="Measure the service and its feed on this machine.")


def main() -> None:
    """Run the command line; an error of ours ends it with its message and exit code 1."""
    # Whoever reads the service's settings, here or in a process started here, finds those of this home.
    os.environ[HOME_VARIABLE] = str(home())
    try:
        app()
    except MorphbatchError as error:
        err.print(f"[bold red]error[/] ({error.reason}): ", end="", highlight=False)
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)  # it may quote a log, brackets and all
        sys.exit(1)


if __name__ == "__main__":
    main()
