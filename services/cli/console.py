"""Where commands write: results to stdout, everything else to stderr, so that `--json` can be piped."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress, ProgressColumn

COULD_NOT: Final = 2
"""Exit code of a command that could not do what was asked; see `services.cli.main` for the others."""

# A log or a pipe has no width of its own; tables should not be squeezed into 80 columns there.
_LOG_WIDTH = 140

out = Console()
err = Console(stderr=True)
for console in (out, err):
    if not console.is_terminal:
        console.width = _LOG_WIDTH


def print_json(value: Any) -> None:
    """Write `value` as JSON to stdout, unstyled and unwrapped."""
    out.file.write(json.dumps(value, indent=2, default=str) + "\n")


def bars(*columns: str | ProgressColumn) -> Progress:
    """Progress bars that leave nothing behind; none where nobody watches."""
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def program() -> str:
    """What the user types to run a command of ours again: its name where PATH finds it, else the way to it."""
    ours = Path(sys.executable).with_name("morphbatch")
    found = shutil.which("morphbatch")
    if found is not None and Path(found).resolve() == ours.resolve():
        return "morphbatch"
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)


def fail(reason: str, message: str) -> int:
    """Write one message to stderr; the exit code that goes with it."""
    err.print(f"[bold red]error[/] ({reason}): ", end="", highlight=False)
    readable = message.encode("utf-8", "backslashreplace").decode()  # a file's name may be any bytes
    err.print(readable, markup=False, highlight=False, soft_wrap=True)  # it may quote a log, brackets and all
    return COULD_NOT
