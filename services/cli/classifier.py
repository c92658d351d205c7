"""`morphbatch evaluate classifier` and `release build`: how good members are, and packing them into a release."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.console import bars, out, print_json
from services.cli.options import JsonOption, MinimumOption, finite
from services.cli.training import needs_extra


def classifier(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Class folders with images, or a CSV.", exists=True)],
    release: Annotated[Path, typer.Option(help="Folder of the release.", exists=True, file_okay=False)],
    split: Annotated[list[str] | None, typer.Option(help="Only this split of the data; may be repeated.")] = None,
    precision: Annotated[
        float,
        typer.Option(min=0.5, max=1, help="Target precision at the review threshold.", callback=finite),
    ] = 0.95,
    html: Annotated[Path | None, typer.Option(help="Also write the report as this HTML page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify labelled images with a release: both members and fused, with intervals, calibration and a report."""
    from rich.table import Table

    from services.reporting.report import WARNINGS

    with needs_extra("train"):
        from triton_models.training.reports.evaluation import evaluate_release
        from triton_models.training.reports.released import open_release
        from triton_models.training.reports.report import write_report
    opened = open_release(release)
    with bars() as progress:
        task = progress.add_task("classifying")
        found = evaluate_release(
            opened,
            folder,
            split or (),
            precision,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if html is not None:
        write_report(found, html)
    if as_json:
        print_json(found.document)
        return
    if warning := WARNINGS.get(found.document["kind"]):
        out.print(f"[bold black on yellow] {warning} [/]")
    mixes = list(next(iter(found.document["classifiers"].values()))["macro_f1_by_mix"])
    of_mixes = (f"{mix} mix" for mix in mixes)
    table = Table("", "accuracy", "95 %", "macro-F1", *of_mixes, "ECE", box=None, header_style="bold")
    for name, figures in found.document["classifiers"].items():
        low, high = figures["interval_95"]["accuracy"]
        interval = f"{low:.3f} – {high:.3f}"
        shown = (figures["macro_f1"], *figures["macro_f1_by_mix"].values(), figures["ece"])
        table.add_row(name, f"{figures['accuracy']:.4f}", interval, *(f"{value:.4f}" for value in shown))
    out.print(table)
    if html is not None:
        out.print(f"report: {html}")


def build(
    efficientnetv2_s: Annotated[Path, typer.Option(help="Run folder of the member.", exists=True)],
    resnetv2_50: Annotated[Path, typer.Option(help="Run folder of the member.", exists=True)],
    fusion: Annotated[Path, typer.Option(help="Fusion folder.", exists=True)],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the release; must not exist.")],
    crop_um: Annotated[float, typer.Option(min=1, max=1000, help="Side of a crop, µm.", callback=finite)],
    name: Annotated[str, typer.Option(help="First part of the release's id.")] = "morphology",
    demonstration: Annotated[
        bool, typer.Option("--demonstration", help="Trained on drawn images; every report says so.")
    ] = False,
    compress: Annotated[
        bool, typer.Option("--compress", help="Store the weights as int8: a quarter of the bytes.")
    ] = False,
    minimum_crop_inside_share: MinimumOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export two trained members as ONNX and pack them with their fusion into a release folder."""
    with needs_extra("train"):
        from services.releases.schema import ReleaseKind
        from triton_models.training.build import Parts, build_release
    kind = ReleaseKind.DEMONSTRATION if demonstration else ReleaseKind.TRAINED
    runs = {"efficientnetv2_s": efficientnetv2_s, "resnetv2_50": resnetv2_50}
    release = build_release(
        Parts(runs, fusion),
        folder,
        name,
        crop_um,
        kind,
        compress=compress,
        minimum_crop_inside_share=minimum_crop_inside_share,
    )
    if as_json:
        print_json({"folder": str(folder), **release.document()})
    else:
        out.print(f"release {release.id} in {folder}", highlight=False)
