"""`morphbatch evaluate …`: what the service finds, compared with what people marked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.classifier import classifier
from services.cli.compile import forms
from services.cli.console import out, print_json
from services.cli.options import JsonOption, MinimumOption, finite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.database.session import Engine
    from services.evaluation.detector import ScoredField

commands = typer.Typer()
evaluate = typer.Typer(no_args_is_help=True)
commands.add_typer(evaluate, name="evaluate", help="Compare what the service finds with annotations.")


evaluate.command()(classifier)
evaluate.command()(forms)


@evaluate.command()
def detector(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of fields with an annotations.jsonl.", exists=True, file_okay=False),
    ],
    um_per_px: Annotated[
        float, typer.Option(min=0.001, max=10, help="Micrometres per pixel of the fields.", callback=finite)
    ] = 0.045,
    part: Annotated[
        Literal["all", "tuning", "holdout"],
        typer.Option(help="tuning: the three fifths of the fields that parameters were set on; holdout: the rest."),
    ] = "all",
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for pictures of each field with hits, misses (M) and false finds (F).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score head detection, outlines and measures. The time is that of all imaging stages on one core."""
    from dataclasses import asdict

    import cv2
    from rich.table import Table

    from services.evaluation.annotations import Part, read_annotations
    from services.evaluation.detector import figures, score_field
    from services.evaluation.pictures import write_picture
    from services.evaluation.stages import imaging_stages
    from services.imaging.types import UmPerPx

    cv2.setNumThreads(1)
    fields = read_annotations(folder, Part(part))
    scale = UmPerPx(um_per_px)
    imaging_stages(fields[0].path, scale)  # the first field of a process pays for loading decoders

    def scored() -> "Iterator[ScoredField]":
        for field in fields:
            result = score_field(field, lambda path: imaging_stages(path, scale))
            if pictures is not None:
                write_picture(result, pictures)
            yield result

    result = figures(scored(), scale)
    if as_json:
        print_json(asdict(result))
        return
    table = Table("figure", "value", title=f"{folder}, {part}, {um_per_px:g} µm per pixel")
    for name, value in asdict(result).items():
        if name != "kinds":
            table.add_row(name, "–" if value is None else f"{value:g}")
    out.print(table)
    table = Table("kind", "whole ones", "found as one head", "as more", "found, not counted", title="by kind")
    for kind, of_kind in result.kinds.items():
        table.add_row(kind, *(str(count) for count in asdict(of_kind).values()))
    out.print(table)


@evaluate.command()
def service(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder that `morphbatch smears` wrote.", exists=True, file_okay=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Send drawn smears through the running service, wait, and compare every cell with the truth."""
    from dataclasses import asdict

    from rich.table import Table

    from services.evaluation.service import score_service

    engine, batch_key = _through_the_service(folder)
    result = score_service(engine, {batch_key: folder})
    if as_json:
        print_json(asdict(result))
        return
    columns = {"macro-F1": result.macro_f1}
    columns |= {f"macro-F1, {mix} mix": values for mix, values in result.macro_f1_by_mix.items()}
    columns |= {"accuracy": result.accuracy}
    found = f"{result.matched} of {result.cells} cells matched, {result.not_counted} more found and not counted"
    table = Table("", *columns, title=found)
    for name in result.macro_f1:
        scores = (values[name] for values in columns.values())
        table.add_row(name, *("–" if value is None else f"{value:.4f}" for value in scores))
    out.print(table)
    out.print(f"ECE of the fused probabilities: {result.ece} ({result.ece_if_calibrated} expected by chance)")


@evaluate.command()
def prevalence(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A folder that `morphbatch smears --balanced` wrote.", exists=True, file_okay=False
        ),
    ],
    slides: Annotated[int, typer.Option(min=2, max=1000, help="Slides of each mixture.")] = 50,
    cells: Annotated[
        int, typer.Option(min=20, max=5000, help="Fewest cells of a slide; the most are half as many again.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="The same seed puts the same slides together.", min=0)] = 1,
    minimum_crop_inside_share: MinimumOption = None,
    as_json: JsonOption = False,
) -> None:
    """Normal forms on slides of known mixtures, as counted and as corrected for the networks' known errors.

    Sends drawn smears through the running service, waits, and puts slides together from the cells that were found. Of
    these, the cells count that count under the active release; another rule may be given.
    """
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from services.evaluation.prevalence import fusion_of, score_prevalence
    from services.evaluation.service import matched_cells

    engine, batch_key = _through_the_service(folder)
    found = matched_cells(engine, {batch_key: folder})
    probabilities = np.array([cell.probabilities for cell in found.matched], np.float32)
    fusion = fusion_of(engine, batch_key)
    result = score_prevalence(
        probabilities,
        found.labels,
        found.counted(minimum_crop_inside_share),
        fusion,
        slides=slides,
        cells=(cells, cells * 3 // 2),
        seed=seed,
    )
    if as_json:
        print_json([asdict(mixture) for mixture in result])
        return
    title = (
        f"{slides} slides of {cells} to {cells * 3 // 2} cells each, drawn from {len(found.labels)}; percentage points"
    )
    columns = ("bias", "error", "width of 95 % interval", "coverage")
    table = Table("mixture", "true %", "", *columns, title=title, box=None, header_style="bold")
    for mixture in result:
        for name, told in (("raw", mixture.raw), ("corrected", mixture.corrected)):
            first = (mixture.mixture, f"{mixture.true_pct:.2f}") if name == "raw" else ("", "")
            figures = f"{told.bias:+.2f}", f"{told.error:.2f}", f"{told.width:.2f}", f"{told.coverage:.0%}"
            table.add_row(*first, name, *figures)
    out.print(table)


def _through_the_service(folder: Path) -> "tuple[Engine, int]":
    """Send a folder of drawn smears, and wait; the database, and the key of the batch there.

    It is a batch of its own each time: the same cells under another release are another evaluation.
    """
    import time

    from services.batches.progress import find_batch
    from services.cli.submit import send
    from services.database.session import make_engine
    from services.intake.folder import read_folder
    from services.settings import load_settings

    lab, batch = "evaluation", f"{folder.resolve().name.lower()[:30]}-{time.strftime('%Y%m%d-%H%M%S')}"
    delivery = read_folder(folder, lab=lab, batch_id=batch, um_per_px=None, stain=None, advance=lambda _: None)
    send(delivery, wait=True)
    engine = make_engine(load_settings().database_url)
    return engine, find_batch(engine, batch, lab)
