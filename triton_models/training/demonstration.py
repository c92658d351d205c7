"""Train the demonstration release: `python -m triton_models.training.demonstration`, or `make demonstration`.

It learns from drawn cells of two stains, well focused; the third stain and blur are held out, to be tested on. What was
interrupted goes on where it stopped when it is started again.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from services.releases.schema import MEMBERS, ReleaseKind
from services.smears.stains import Stain
from triton_models.training.build import Parts, build_release
from triton_models.training.config import read_config, with_data, with_weights
from triton_models.training.data.drawn import DrawnSpec, write_drawn_cells, write_lone_cells
from triton_models.training.fusion.fuse import fuse_runs
from triton_models.training.learning.side_by_side import Job, train_each
from triton_models.training.learning.train import RUN_NAME
from triton_models.training.reports.evaluation import evaluate_release
from triton_models.training.reports.released import open_release
from triton_models.training.reports.report import write_report

REPOSITORY: Final = Path(__file__).parents[2]
CONFIGS: Final = Path(__file__).parent / "configs"
CROP_UM: Final = 22.0
MINIMUM_CROP_INSIDE_SHARE: Final = 0.8
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
        fuse_runs((out / MEMBERS[0], out / MEMBERS[1]), out / "fusion", for_published_mix=True)
    release = out / "release"
    if not release.exists():
        parts = Parts({member: out / member for member in MEMBERS}, out / "fusion")
        kind, inside = ReleaseKind.DEMONSTRATION, MINIMUM_CROP_INSIDE_SHARE
        build_release(
            *(parts, release, "demonstration", CROP_UM, kind), compress=True, minimum_crop_inside_share=inside
        )
    for name, splits in (("cells", ("val",)), ("held-out", ("test",))):
        evaluation = evaluate_release(open_release(release), out / name, splits)
        write_report(evaluation, out / f"{name}.html")
        for classifier, found in evaluation.document["classifiers"].items():
            figures = ", ".join(f"{what} {found[what]:.3f}" for what in ("accuracy", "macro_f1", "ece"))
            console.print(f"{name}, {classifier}: {figures}", highlight=False, soft_wrap=True)
    console.print(f"release: {release}; reports beside it", highlight=False, soft_wrap=True)


def _draw(folder: Path, write: Callable[..., None]) -> None:
    if folder.exists():
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"drawing {folder.name}")
        write(folder, step=lambda done, total: progress.update(task, completed=done, total=total))


def _train_members(out: Path) -> None:
    """Train both in steps, each going on from the last: lone cells, then fields, then whole crops."""
    before: dict[str, Path] = {}
    for data, name, prefix in STEPS:
        config = with_data(read_config(CONFIGS / name), out / data)
        runs = {member: out / f"{prefix}{member}" for member in MEMBERS}
        train_each(
            [
                Job(member, with_weights(config, _weights(before[member]) if before else None), run)
                for member, run in runs.items()
            ]
        )
        before = runs


def _weights(run: Path) -> str:
    return str(run / json.loads((run / RUN_NAME).read_text(encoding="utf-8"))["weights"])


if __name__ == "__main__":
    app()
