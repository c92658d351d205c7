"""Started by test_devices.py, on two processes of the CPU. Arguments: images, run folder, steps until it stops."""

import sys
from pathlib import Path

from triton_models.training.config import Data, Optimisation, Preparation, Run, TrainingConfig
from triton_models.training.learning.train import RunInterrupted, train

if __name__ == "__main__":
    images, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = TrainingConfig(
        data=Data(path=images, classes="found"),
        preparation=Preparation(view_px=48, side_px=32),
        optimisation=Optimisation(epochs=2, batch=8, warmup_epochs=1),
        run=Run(devices=2, accelerator="cpu", threads=1),
    )
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == steps

    try:
        train("test_resnet", config, folder, resume=(folder / "last.pt").exists(), stop=stop)
    except RunInterrupted:
        sys.exit(0)
