"""`morphbatch data check`, `train` and `fuse`: from labelled images to two fused members."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.console import bars, err, out, print_json
from services.cli.options import JsonOption, finite
from services.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

commands = typer.Typer()
data = typer.Typer(no_args_is_help=True)
commands.add_typer(data, name="data", help="Check labelled images before training on them.")


class ExtraMissing(ConfigurationError):
    """The command requires packages that the service does not."""

    reason = "extra_missing"


@contextmanager
def needs_extra(extra: Literal["local", "train", "rtx"]) -> Iterator[None]:
    """Turn a missing library of an extra into a sentence that says what to install.

    Raises:
        ExtraMissing: names the library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"services", "triton_models"}:
            raise
        raise ExtraMissing(
            f"{error.name} is not installed; install the extra {extra}: pip install 'morphbatch[{extra}]'"
        ) from error


@data.callback()
def group() -> None:
    """Keeps `data` a group while it has one command."""


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="[<split>/]<class>/<image>, or a CSV.", exists=True)],
    html: Annotated[
        Path | None, typer.Option(help="HTML page to write; default: data-check.html in this folder.")
    ] = None,
    likeness: Annotated[
        float,
        typer.Option(min=0.5, max=1, help="Correlation from which two images count as the same.", callback=finite),
    ] = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Report classes, duplicates (also turned or re-encoded), unreadable files and leakage across splits.

    Exits 1 if something must be fixed before results on this data can be trusted.
    """
    from rich.table import Table

    with needs_extra("train"):
        from triton_models.training.data.check import check_data
        from triton_models.training.reports.check_page import write_check_page
    page = html or Path("data-check.html")
    with bars() as progress:
        task = progress.add_task("reading images")
        found = check_data(folder, likeness, lambda done, total: progress.update(task, completed=done, total=total))
    write_check_page(found, page)
    if as_json:
        print_json({**found.document(), "page": str(page)})
    else:
        splits = sorted({split for counts in found.counts.values() for split in counts})
        table = Table("class", "spelling in the data", *splits, "all", box=None, header_style="bold")
        for name, counts in found.counts.items():
            cells = [str(counts.get(split, 0)) for split in splits]
            table.add_row(name, ", ".join(found.spellings[name]), *cells, str(sum(counts.values())))
        out.print(table)
        for fault in found.faults:
            out.print(f"[bold red]fault[/] {fault}")
        for remark in found.remarks:
            out.print(f"[yellow]note[/] {remark}")
        out.print(f"page: {page}")
    if found.faults:
        raise typer.Exit(1)


class _Bars:
    """Progress bars of a training run."""

    def __init__(self, progress: "Progress", epochs: int) -> None:
        self.progress = progress
        self.epochs: TaskID = progress.add_task("epochs", total=epochs)
        self.steps: TaskID = progress.add_task("epoch 1")

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A batch is done."""
        description = f"epoch {epoch + 1}, loss {loss:.3f}"
        self.progress.update(self.steps, completed=step, total=steps, description=description)
        self.progress.update(self.epochs, completed=epoch + step / steps)

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch is done."""
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name != "epoch")
        err.print(f"epoch {row['epoch'] + 1:.0f}  {figures}", highlight=False)


@commands.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run.", exists=True)],
    member: Annotated[Literal["efficientnetv2_s", "resnetv2_50"], typer.Option(help="Which network.")],
    images: Annotated[
        Path | None, typer.Option("--data", help="Images to use instead of those in the TOML file.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<config>-<member>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run folder's last checkpoint.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one member. Ctrl-C writes a checkpoint first; --resume continues from it with bit-identical results."""
    import signal

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    with needs_extra("train"):
        from triton_models.training.config import read_config, with_data
        from triton_models.training.learning.train import train as train_member
    whole = read_config(config)
    if images is not None:
        whole = with_data(whole, images)
    folder = folder or Path("runs") / f"{config.stem}-{member}"
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: asked.append(received))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bars(*columns) as progress:
        shown = _Bars(progress, whole.optimisation.epochs)
        record = train_member(member, whole, folder, resume, shown, lambda: bool(asked))
    if as_json:
        print_json({"run": str(folder), **record})
        return
    found = record.get("validation")
    if found is not None:
        computed = f"{record['precision']} on {record['device']}"
        out.print(
            f"{member} ({computed}): validation accuracy {found['accuracy']:.4f}, macro-F1 {found['macro_f1']:.4f}"
        )
    out.print(f"run folder: {folder}; curves: tensorboard --logdir {folder}")


@commands.command()
def fuse(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of one member.", exists=True)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of the other member.", exists=True)],
    folder: Annotated[Path, typer.Option("--out", help="Fusion folder to write: fusion.json, choice.json, curve.svg.")],
    objective: Annotated[
        Literal["macro_f1", "macro_recall", "macro_precision"], typer.Option(help="What α maximises.")
    ] = "macro_f1",
    mix: Annotated[
        Literal["learnt", "published"],
        typer.Option(
            help="The mix of classes that the release is meant for: the one that its networks learnt from, or that of"
            " the published data set, where the commonest class is 44 times as frequent as the rarest."
        ),
    ] = "learnt",
    as_json: JsonOption = False,
) -> None:
    """Choose the weight α of z = α·z₁/T₁ + (1 − α)·z₂/T₂ on the members' validation logits."""
    from rich.table import Table

    from services.releases.fusion import weight_text

    with needs_extra("train"):
        from triton_models.training.fusion.curve import FusionObjective
        from triton_models.training.fusion.fuse import fuse_runs
    fitted, choice = fuse_runs(
        (first, second), folder, FusionObjective(objective), for_published_mix=mix == "published"
    )
    if as_json:
        print_json({"folder": str(folder), **choice})
        return
    table = Table("weighting", f"{objective}, nested cross-validation", box=None, header_style="bold")
    for weighting, found in choice["nested_cross_validation"].items():
        table.add_row(weighting, f"{found['mean']:.4f}")
    out.print(table)
    at = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in choice["at_alpha"].items())
    weight = weight_text(fitted.alpha)
    out.print(f"α = {weight} (the weight of EfficientNetV2-S); on validation: {at}", highlight=False)
    low, high = choice["alpha_as_good"]
    likeliest = f"likeliest: {choice['likeliest_alpha']:.3f}"
    out.print(f"as good within one standard error: α from {low:g} to {high:g}; {likeliest}", highlight=False)
    for name, found in choice.get("macro_f1_by_mix", {}).items():
        told = ", ".join(f"{value:.4f} on the {of} mix" for of, value in found.items())
        out.print(f"macro-F1 {name.replace('_', ' ')}: {told}", highlight=False)
    weightings = f"best weighting: {fitted.best_weighting}, released: {fitted.released.weighting}"
    out.print(f"members alone: {choice['members']}; {weightings}; folder: {folder}", highlight=False)
