"""The networks alone, on a GPU that is played: what the program gives them, and what it says of them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from services.benchmark.alone import networks_alone
from services.benchmark.stack import BenchmarkFailed
from services.releases.schema import MEMBERS

NETWORK = """
import numpy as np
class Network:
    def __init__(self, file, sizes):
        self.file, (size,) = file, sizes
        self.crops = np.zeros((size, 4, 4, 3), np.uint8)
    def run(self, size):
        with self.file.open("a") as file:
            print(*self.crops[:size, 0, 0, 0], file=file)
        return np.full((size, 18), FILLED)
"""


def laid_out(folder: Path, filled: str) -> Path:
    """A repository whose networks answer one number, and write down what they are given."""
    for member in MEMBERS:
        (folder / member / "1").mkdir(parents=True)
        (folder / member / "config.pbtxt").write_text(
            'parameters { key: "model_file" value { string_value: "model.onnx" } }'
        )
        (folder / member / "1" / "network.py").write_text(NETWORK.replace("FILLED", filled))
        (folder / member / "1" / "model.onnx").touch()
    np.save(folder / "crops.npy", np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 4, 4, 3)))
    return folder


def test_both_networks_are_given_every_crop(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "1.0")
    answer = networks_alone(Path(sys.executable), folder, folder / "crops.npy", 4)
    assert (answer["crops"], answer["sub_batch"], answer["streams"]) == (10, 4, 2)
    assert answer["seconds"] >= max(answer["seconds_each"]) > 0
    for member in MEMBERS:
        *_, third, second, last = (folder / member / "1" / "model.onnx").read_text().splitlines()
        assert [third, second, last] == ["0 1 2 3", "4 5 6 7", "8 9 6 7"]  # after a warm-up


def test_nonsense_is_no_figure(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "np.nan")
    with pytest.raises(BenchmarkFailed, match="not finite"):
        networks_alone(Path(sys.executable), folder, folder / "crops.npy", 4)
    (folder / MEMBERS[1] / "1" / "network.py").write_text("raise RuntimeError('no GPU')")
    with pytest.raises(BenchmarkFailed, match="no GPU"):
        networks_alone(Path(sys.executable), folder, folder / "crops.npy", 4)
