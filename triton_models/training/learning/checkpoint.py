"""Everything a run needs to continue as if it had never stopped."""

import pickle
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from services.atomic import whole_file
from services.errors import ConfigurationError

LAST = "last.pt"
BEST = "best.pt"


UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)
"""What torch raises for a file that it did not write."""


class CheckpointMissing(ConfigurationError):
    """There is no checkpoint to resume from, or it is of another run."""

    reason = "checkpoint_missing"


@dataclass(slots=True)
class Position:
    """Where a run stands: `step` batches of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of the epoch under way
    best_f1: float = -1.0
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


def random_state() -> dict[str, Any]:
    """The state of every global random generator, in types that torch reads back without running code."""
    name, keys, place, has_gauss, gauss = np.random.get_state()
    version, numbers, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), [int(key) for key in keys], int(place), int(has_gauss), float(gauss)),
        "python": (version, list(numbers), next_gauss),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo every draw since `state` was taken."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), place, has_gauss, gauss))
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))


def save(path: Path, content: dict[str, Any], position: Position) -> None:
    """Write a checkpoint whole, or not at all. `content` holds state dictionaries and plain values."""
    with whole_file(path) as draft:
        torch.save({**content, "position": asdict(position)}, draft)


def load(path: Path) -> tuple[dict[str, Any], Position]:
    """The content and position of a checkpoint; random generators are left alone.

    Raises:
        CheckpointMissing: there is none, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointMissing(f"{path} does not exist; start the run without --resume")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content, Position(**content.pop("position"))
    except UNREADABLE as error:
        raise CheckpointMissing(f"{path} is damaged ({_first_line(error)}); start the run again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
