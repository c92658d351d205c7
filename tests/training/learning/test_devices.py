"""Several devices: Fabric starts a process for each; here they are two processes of the CPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.places import CHECKOUT


def test_two_devices_train_one_network_and_resume_to_the_bit(cells: Callable[..., Path], tmp_path: Path) -> None:
    images = cells({"train": {"normal": 16, "tapered": 16}, "val": {"normal": 6, "tapered": 6}})

    def run(name: str, steps: int) -> None:
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("two_devices.py")), images, tmp_path / name, str(steps)],
            check=True,
            timeout=180,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
        )

    run("whole", 0)
    run("broken", 3)
    run("broken", 0)
    whole, broken = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken"))
    assert len(whole["randoms"]) == 2
    assert whole["position"]["epoch"] == broken["position"]["epoch"] == 2
    assert all(torch.equal(whole["network"][name], broken["network"][name]) for name in whole["network"])
