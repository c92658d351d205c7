"""One command a public data set: train both members, fuse, write a release and its report.

`python -m triton_models.training.reproduce smids|hushem`. It trains on from the shipped demonstration release. What was
interrupted goes on where it stopped when it is started again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console

from services.atomic import write_text
from services.errors import ConfigurationError
from services.releases.schema import MEMBERS, ReleaseKind, verify_release
from triton_models.layout.served_here import SHIPPED
from triton_models.training.build import Parts, build_release
from triton_models.training.config import TrainingConfig, read_config, with_data, with_weights
from triton_models.training.data.dataset import LabelledImage, read_dataset
from triton_models.training.fusion.fuse import fuse_logits, fuse_runs
from triton_models.training.learning.logits import LabelledLogits, read_logits
from triton_models.training.learning.side_by_side import Job, train_each
from triton_models.training.learning.train import LOGITS_NAME
from triton_models.training.reports.evaluation import Evaluation, evaluate_release, score
from triton_models.training.reports.released import open_release
from triton_models.training.reports.report import write_report

CONFIGS: Final = Path(__file__).parent / "configs"
REPOSITORY: Final = Path(__file__).parents[2]
console = Console(stderr=True)
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


class DataMissing(ConfigurationError):
    """The public images are not on this machine."""

    reason = "data_missing"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A public data set. `crop_um` is nominal: neither set states its scale, heads are taken to be 4.5 µm long."""

    name: str
    crop_um: float
    folds: bool


SETS: Final = {
    "smids": Reproduction("smids", crop_um=16.0, folds=False),
    "hushem": Reproduction("hushem", crop_um=14.0, folds=True),
}


def one_split(config: TrainingConfig, out: Path, weights: dict[str, str | None]) -> tuple[Parts, None]:
    """Train and fuse on the data's own training and validation parts."""
    runs = {member: out / member for member in MEMBERS}
    train_each([Job(member, with_weights(config, weights[member]), runs[member]) for member in MEMBERS])
    fuse_runs((runs[MEMBERS[0]], runs[MEMBERS[1]]), out / "fusion")
    return Parts(runs, out / "fusion"), None


def every_fold(
    config: TrainingConfig, out: Path, weights: dict[str, str | None]
) -> tuple[Parts, dict[str, LabelledLogits]]:
    """Cross-validate along the data's folds, fuse on the held-out logits, and train the released members on all."""
    dataset = read_dataset(config.data.path)
    jobs = []
    for member in MEMBERS:
        start = with_weights(config, weights[member])
        for fold in dataset.splits:
            rest = tuple(image for image in dataset.images if image.split != fold)
            jobs.append(Job(member, start, out / f"{member}-{fold}", (rest, dataset.in_splits([fold]))))
        jobs.append(Job(member, start, out / member, (dataset.images, ())))
    train_each(jobs)
    held_out = {
        member: _joined([read_logits(out / f"{member}-{fold}" / LOGITS_NAME) for fold in dataset.splits])
        for member in MEMBERS
    }
    fuse_logits(held_out[MEMBERS[0]], held_out[MEMBERS[1]], out / "fusion")
    return Parts({member: out / member for member in MEMBERS}, out / "fusion"), held_out


def _joined(parts: Sequence[LabelledLogits]) -> LabelledLogits:
    return LabelledLogits(
        parts[0].classes,
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )


def evaluated(release: Path, config: TrainingConfig, held_out: dict[str, LabelledLogits] | None) -> Evaluation:
    """The release on the validation part; with folds, the networks that had not seen the images, fused as released."""
    classifier = open_release(release)
    if held_out is None:
        return evaluate_release(classifier, config.data.path, config.data.validation)
    by_name: dict[str, LabelledImage] = {
        image.path.relative_to(config.data.path).as_posix(): image for image in read_dataset(config.data.path).images
    }
    first = held_out[MEMBERS[0]]
    logits = {member: found.logits for member, found in held_out.items()}
    evaluation = score(classifier, [by_name[name] for name in first.names], first.labels, logits, 0.95)
    evaluation.document.update(chose_alpha=True, cross_validated=True)
    return evaluation


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="smids or hushem.")],
    data: Annotated[
        Path | None, typer.Option(help="Default: the folder in MORPHBATCH_DATA, or ../shared/data.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/<name>, or runs/<name>-scratch.")] = None,
    scratch: Annotated[
        bool,
        typer.Option("--scratch", help="Start from random weights; default: from those of the shipped release."),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Number of epochs; 0: as in the TOML file.")] = 0,
) -> None:
    """Train both members on a public data set, fuse, write a release, evaluate it."""
    if name not in SETS:
        raise typer.BadParameter(f"'{name}' is not one of {', '.join(SETS)}")
    chosen = SETS[name]
    root = data or Path(os.environ.get("MORPHBATCH_DATA", REPOSITORY.parent / "shared" / "data")) / name
    if not root.is_dir():
        raise DataMissing(f"{root} does not exist; set MORPHBATCH_DATA to the folder that holds {name}")
    out = out or REPOSITORY / "runs" / (f"{name}-scratch" if scratch else name)
    config = with_data(read_config(CONFIGS / f"{name}.toml"), root)
    if epochs:
        config = config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"epochs": epochs})})
    began = None if scratch else verify_release(SHIPPED)
    weights = {member: str(SHIPPED / began.members[member].onnx) if began else None for member in MEMBERS}
    parts, held_out = (every_fold if chosen.folds else one_split)(config, out, weights)
    release = out / "release"
    if not release.exists():
        started = f"from {began.id}" if began else "from scratch"
        build_release(parts, release, name, chosen.crop_um, ReleaseKind.TRAINED, {"started": started})
    evaluation = evaluated(release, config, held_out)
    write_report(evaluation, out / "report.html")
    write_text(out / "evaluation.json", json.dumps(evaluation.document, indent=2) + "\n")
    for classifier, found in evaluation.document["classifiers"].items():
        low, high = found["interval_95"]["accuracy"]
        console.print(
            f"{classifier:>18}: accuracy {found['accuracy']:.3f} ({low:.3f} – {high:.3f}), "
            f"macro-F1 {found['macro_f1']:.3f}, ECE {found['ece']:.3f}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"release, fusion, report.html and evaluation.json: {out}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()
