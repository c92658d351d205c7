"""The networks of a laid-out repository without a server around them, by a program in Triton's environment."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

from services.benchmark.cores import Cores
from services.benchmark.stack import BenchmarkFailed
from services.releases.schema import MEMBERS

_PROGRAMS: Final = Path(__file__).parent / "programs"


def networks_alone(python: Path, repository: Path, crops: Path, batch: int) -> dict[str, Any]:
    """What both networks that `repository` serves take for the crops in the `.npy` file `crops`.

    On a GPU they run at once, in batches of `batch`; on a CPU, in OpenVINO, one after the other. Keys: `crops`,
    `seconds`, `seconds_each`, `cpu_s`, `others_s`, `streams`, `sub_batch`.

    Raises:
        BenchmarkFailed: the program failed, or a network answered values that are not finite.
    """
    models = [model_file(repository, member) for member in MEMBERS]
    on_gpu = models[0].with_name("network.py").exists()
    program = ("gpu_alone.py", str(crops), str(batch)) if on_gpu else ("openvino_alone.py", str(crops))
    cores = Cores.without_services()
    answer = run_program(python, *program, *map(str, models))
    if not answer["finite"]:
        raise BenchmarkFailed("the networks alone answered values that are not finite")
    return {**answer, "others_s": cores.spent()["others"]}


def model_file(repository: Path, member: str) -> Path:
    """The very file that is served, whatever the form of the release."""
    folder = repository / member
    named = re.search(r'key: "model_file" value { string_value: "([^"]+)"', (folder / "config.pbtxt").read_text())
    if named is None:
        raise BenchmarkFailed(f"{folder}: its configuration names no model_file")
    return folder / "1" / named[1]


def run_program(python: Path, name: str, *arguments: str) -> dict[str, Any]:
    """The JSON that one of `programs` answers."""
    done = subprocess.run(
        [str(python), "-I", str(_PROGRAMS / name), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkFailed(f"{name} in {python} failed: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
