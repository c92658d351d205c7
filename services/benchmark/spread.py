"""A figure that was measured several times, and what else must be known to compare it with another day's."""

import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """`{"median", "min", "max", "runs"}`; a figure without its spread is no figure."""
    rounded = [round(value, 3) for value in values]
    return {
        "median": round(statistics.median(values), 3),
        "min": min(rounded),
        "max": max(rounded),
        "runs": rounded,
    }


def machine() -> dict[str, Any]:
    """Processor, GPUs, usable cores, and the load at this moment: above about 1.5 others were at work too."""
    return {
        "processor": _processor(),
        "gpus": _gpus(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _gpus() -> list[str]:
    """What NVIDIA's driver lists; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
