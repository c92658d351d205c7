"""`morphbatch smears`: draw a batch of stained smears whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.console import bars, out
from services.cli.options import finite

commands = typer.Typer()


@commands.command()
def smears(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; created if missing.")],
    slides: Annotated[int, typer.Option(help="Slides; two per specimen.", min=1, max=999)] = 8,
    fields: Annotated[int, typer.Option(help="Fields per slide.", min=1, max=999)] = 6,
    cells: Annotated[int, typer.Option(help="Cells per field, about.", min=0, max=5000)] = 12,
    seed: Annotated[int, typer.Option(help="The same seed draws the same bytes.", min=0)] = 1,
    um_per_px: Annotated[float, typer.Option(help="Micrometres per pixel.", min=0.02, max=1.0, callback=finite)] = 0.09,
    stain: Annotated[
        list[str] | None, typer.Option(help="diff-quik, papanicolaou or shorr; may be repeated; all by default.")
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option(
            help="Sigma of the blur, µm (0.09 is well focused). By default it varies a little.", min=0, callback=finite
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option(help="All 18 classes equally often; default: as in the published data set.")
    ] = False,
    faults: Annotated[
        float,
        typer.Option(
            help="Share of fields that are out of focus, badly lit or vignetted.", min=0, max=1, callback=finite
        ),
    ] = 0,
    debris: Annotated[float, typer.Option(help="Amount of debris; 1 is usual.", min=0, max=20, callback=finite)] = 1,
    doubtful: Annotated[
        int,
        typer.Option(
            help="Pin heads, double heads, heads without a tail, dirt and the like: each so often.", min=0, max=9
        ),
    ] = 0,
    width: Annotated[int, typer.Option(help="Width of a field, pixels.", min=64, max=8192)] = 1280,
    height: Annotated[int, typer.Option(help="Height of a field, pixels.", min=64, max=8192)] = 1024,
    lab: Annotated[str, typer.Option(help="The lab in the manifest.")] = "demo-lab",
    batch: Annotated[str | None, typer.Option(help="The batch id in the manifest; default: `smears-SEED`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier batch of drawn smears.")] = False,
) -> None:
    """Draw a batch of stained smears: images, manifest.json, and truth.jsonl with each cell's class and outline."""

    from services.smears.batch import BatchSpec, write_batch
    from services.smears.doubtful import Doubtful
    from services.smears.field import FieldSpec
    from services.smears.stains import Stain

    try:
        stains = tuple(Stain(name) for name in stain) if stain else tuple(Stain)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; known: {', '.join(Stain)}", param_hint="--stain") from error
    spec = BatchSpec(
        lab=lab,
        batch_id=batch or f"smears-{seed}",
        stains=stains,
        balanced=balanced,
        faults=faults,
        field=FieldSpec(
            width, height, um_per_px, cells=cells, blur_um=blur, debris=debris, doubtful=tuple(Doubtful) * doubtful
        ),
    )
    with bars() as progress:
        bar = progress.add_task("drawing", total=slides * fields)
        write_batch(
            folder,
            slides=slides,
            fields_per_slide=fields,
            seed=seed,
            spec=spec,
            force=force,
            on_field=lambda done, _: progress.update(bar, completed=done),
        )
    out.print(
        f"{folder}: {slides} slides × {fields} fields of {width}×{height} px at {um_per_px} µm/px, seed {seed}"
        f" ({', '.join(stains[: (slides + 1) // 2])}); lab {lab}, batch {spec.batch_id}",
        highlight=False,
    )
    out.print("manifest.json, truth.jsonl (class, boxes and outlines of every cell)", highlight=False)
