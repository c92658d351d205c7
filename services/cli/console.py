"""Where commands write: results to stdout, everything else to stderr, so that `--json` can be piped."""

import json
from typing import Any

from rich.console import Console

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """Write `value` as JSON to stdout, unstyled and unwrapped."""
    out.file.write(json.dumps(value, indent=2, default=str) + "\n")
