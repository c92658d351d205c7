"""What a run writes down each epoch: metrics.csv, and the same numbers for TensorBoard."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from services.atomic import write_text

CSV_NAME = "metrics.csv"


class Journal:
    """The journal of the run in `folder`; a resumed run writes over what comes after `first_epoch`."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self.path = folder / CSV_NAME
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)

    def write(self, history: Sequence[dict[str, float]]) -> None:
        """Write the rows of all epochs so far; the last is new."""
        text = io.StringIO()
        rows = csv.DictWriter(text, list(history[-1]), lineterminator="\n")
        rows.writeheader()
        rows.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
        write_text(self.path, text.getvalue())
        for name, value in history[-1].items():
            if name != "epoch":
                self._board.add_scalar(name, value, int(history[-1]["epoch"]))
        self._board.flush()

    def close(self) -> None:
        """End the TensorBoard file."""
        self._board.close()
