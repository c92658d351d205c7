"""Data sets small enough to train on in a second."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WHY = "torch is not installed; `make test-training` runs these in an environment that has it"


class _WithoutTorch(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        pytest.skip(WHY, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip every module here, saying why, where it could not even be imported."""
    if importlib.util.find_spec("torch") is None:
        return _WithoutTorch.from_parent(parent, path=module_path)
    return None


SHAPES = ("normal", "tapered", "odd")


def draw_cell(kind: str, rng: np.random.Generator, px: int = 48) -> np.ndarray:
    """A dark head on a bright ground whose length and colour tell its class."""
    y, x = np.mgrid[0:px, 0:px] - px / 2 + rng.uniform(-2, 2, (2, 1, 1))
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    length, width = {"normal": (9, 7), "tapered": (15, 4), "odd": (5, 5)}[kind]
    picture = np.full((px, px, 3), 220.0)
    picture[(along / length) ** 2 + (across / width) ** 2 < 1] = {"normal": 60, "tapered": 90, "odd": 130}[kind]
    picture += rng.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture
def cells(tmp_path: Path) -> Callable[..., Path]:
    """Draws an image folder `<split>/<class>/<n>.png`."""

    def draw(counts: dict[str, dict[str, int]], name: str = "cells", seed: int = 3) -> Path:
        rng = np.random.default_rng(seed)
        for split, classes in counts.items():
            for kind, count in classes.items():
                folder = tmp_path / name / split / kind
                folder.mkdir(parents=True)
                for number in range(count):
                    Image.fromarray(draw_cell(kind, rng)).save(folder / f"{number:03}.png")
        return tmp_path / name

    return draw
