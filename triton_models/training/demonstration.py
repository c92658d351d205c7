"""Train the demonstration release: `python -m triton_models.training.demonstration`, or `make demonstration`.

It learns from drawn cells of two stains, well focused; the third stain and blur are held out, to be tested on. What was
interrupted goes on where it stopped when it is started again.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from services.errors import TransientError
from services.smears.stains import Stain
from triton_models.release.build import Parts, build_release
from triton_models.release.schema import MEMBERS, ReleaseKind
from triton_models.training.checkpoint import LAST
from triton_models.training.config import as_toml, read_config, with_weights
from triton_models.training.drawn import DrawnSpec, write_drawn_cells, write_lone_cells
from triton_models.training.evaluation import evaluate_release
from triton_models.training.fuse import fuse_runs
from triton_models.training.pages import write_text
from triton_models.training.released import open_release
from triton_models.training.report import write_report
from triton_models.training.train import RUN_NAME

REPOSITORY: Final = Path(__file__).parents[2]
CONFIGS: Final = Path(__file__).parent / "configs"
CROP_UM: Final = 22.0
LEARNT: Final = DrawnSpec(
    {"train": 1150, "val": 110}, CROP_UM, 96, stains=(Stain.DIFF_QUIK, Stain.SHORR), blur_um=(0.05, 0.16), seed=2026
)
LONE: Final = {"train": 840, "val": 40}
HELD_OUT: Final = DrawnSpec({"test": 110}, CROP_UM, 96, stains=(Stain.PAPANICOLAOU,), blur_um=(0.2, 0.3), seed=4052)

STEPS: Final = (  # data, configuration, prefix of the runs; from the first with drawn weights
    ("lone", "drawn-lone.toml", "lone-"),
    ("cells", "drawn-small.toml", "small-"),
    ("cells", "drawn.toml", ""),
)

console = Console(stderr=True)
app = typer.Typer(no_args_is_help=False, pretty_exceptions_enable=False)


class MemberNotTrained(TransientError):
    """The training of a member ended early; started again it goes on from its last checkpoint."""

    reason = "member_not_trained"


@app.command()
def demonstrate(
    out: Annotated[Path, typer.Option(help="Working folder.")] = REPOSITORY / "runs" / "demonstration",
) -> None:
    """Draw cells, train both members side by side, fuse, build the release, evaluate it on what was held out."""
    _draw(out / "lone", partial(write_lone_cells, spec=LEARNT, a_class=LONE))
    _draw(out / "cells", partial(write_drawn_cells, spec=LEARNT))
    _draw(out / "held-out", partial(write_drawn_cells, spec=HELD_OUT))
    _train_members(out)
    if not (out / "fusion").exists():
        fuse_runs((out / MEMBERS[0], out / MEMBERS[1]), out / "fusion")
    release = out / "release"
    if not release.exists():
        parts = Parts({member: out / member for member in MEMBERS}, out / "fusion")
        build_release(parts, release, "demonstration", CROP_UM, ReleaseKind.DEMONSTRATION, compress=True)
    for name, splits in (("cells", ("val",)), ("held-out", ("test",))):
        evaluation = evaluate_release(open_release(release), out / name, splits)
        write_report(evaluation, out / f"{name}.html")
        for classifier, found in evaluation.document["classifiers"].items():
            figures = ", ".join(f"{what} {found[what]:.3f}" for what in ("accuracy", "macro_f1", "ece"))
            console.print(f"{name}, {classifier}: {figures}", highlight=False)
    console.print(f"release: {release}; reports beside it", highlight=False)


def _draw(folder: Path, write: Callable[..., None]) -> None:
    if folder.exists():
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"drawing {folder.name}")
        write(folder, step=lambda done, total: progress.update(task, completed=done, total=total))


def _train_members(out: Path) -> None:
    """Train both in steps, each going on from the last: lone cells, then fields, then whole crops."""
    before = ""
    for data, config, prefix in STEPS:
        configs = {}
        for member in MEMBERS:
            configs[member] = out / f"{prefix}{member}.toml"
            start = _weights(out / f"{before}{member}") if before else None
            write_text(configs[member], as_toml(with_weights(read_config(CONFIGS / config), start)))
        _train_both(out, out / data, configs, prefix)
        before = prefix


def _weights(run: Path) -> str:
    return str(run / json.loads((run / RUN_NAME).read_text(encoding="utf-8"))["weights"])


def _train_both(out: Path, data: Path, configs: dict[str, Path], prefix: str) -> None:
    """Train both at once: the configuration gives each of them one core."""
    running = {}
    for member, config in configs.items():
        run = out / f"{prefix}{member}"
        if (run / RUN_NAME).exists():
            continue
        command = [sys.executable, "-m", "services.cli.main", "train", str(config), "--member", member]
        command += ["--data", str(data), "--out", str(run)]
        command += ["--resume"] * (run / LAST).exists()
        running[member] = subprocess.Popen(command, cwd=REPOSITORY)
    ended = {member: process.wait() for member, process in running.items()}
    failed = [member for member, status in ended.items() if status]
    if failed:
        raise MemberNotTrained(f"{', '.join(failed)}: see the message above; start this again to go on")


if __name__ == "__main__":
    app()
