"""Where commands write: results to stdout, everything else to stderr, so that `--json` can be piped."""

import json
from typing import Any

from rich.console import Console

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
