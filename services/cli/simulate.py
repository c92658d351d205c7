"""`morphbatch simulate`: what a night takes, before there is a cluster for it."""

from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.console import out, print_json
from services.cli.options import JsonOption, finite
from services.cli.training import needs_extra

if TYPE_CHECKING:
    from rich.table import Table

    from services.capacity.advice import Advice
    from services.capacity.nights import Night
    from services.capacity.rates import Rates
    from services.capacity.study import Study

commands = typer.Typer()

_Servers = Annotated[
    float | None, typer.Option(min=0.1, max=100_000, callback=finite, help="Its servers; default: as advised.")
]
_Price = Annotated[float, typer.Option(min=0, callback=finite, help="Price, in any currency; default: unknown.")]


def _mean(help_: str, least: float, most: float) -> Any:
    return typer.Option(min=least, max=most, help=help_, callback=finite)


_FIRST, _LAST, _DUE = (datetime(1900, 1, 1, hour) for hour in (17, 1, 7))


@commands.command()
def simulate(
    labs: Annotated[int, typer.Option(min=1, max=100_000, help="Labs; each sends one batch.")] = 1,
    slides: Annotated[float, _mean("Slides in a batch, on average.", 1, 1000)] = 8,
    fields: Annotated[float, _mean("Fields of a slide, on average.", 1, 1000)] = 20,
    cells: Annotated[float, _mean("Cells in a field, on average.", 0, 1000)] = 12,
    megabytes: Annotated[float, _mean("Size of a field's file.", 0, 1000)] = 0.5,
    first: Annotated[datetime, typer.Option("--from", formats=["%H:%M"], help="First upload.")] = _FIRST,
    last: Annotated[datetime, typer.Option("--to", formats=["%H:%M"], help="Last upload.")] = _LAST,
    urgent: Annotated[float, _mean("Share of the batches that are urgent.", 0, 1)] = 0.02,
    night: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Not a drawn night, but the one of this evening on record, beside how it really ended.",
            show_default=False,
        ),
    ] = None,
    finish_by: Annotated[
        datetime, typer.Option("--finish-by", formats=["%H:%M"], help="When the night should have ended.")
    ] = _DUE,
    gpu: Annotated[bool, typer.Option("--gpu", help="Triton runs on GPUs instead of cores.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Most slide workers; default: as advised.")
    ] = None,
    triton: _Servers = None,
    postgres: _Servers = None,
    store: _Servers = None,
    one_machine: Annotated[
        float | None,
        typer.Option(
            "--one-machine", min=0.1, max=1024, help="All of it shares so many cores of one machine.", callback=finite
        ),
    ] = None,
    rates: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON of `morphbatch bench … --json` of your machines, or TOML like services/capacity/measured.toml;"
            " may be given several times.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    core_hour: _Price = 0,
    gpu_hour: _Price = 0,
    gb_month: _Price = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same night.")] = 1,
    picture: Annotated[Path | None, typer.Option(help="SVG file to write; its name ends in .svg.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a night: when it ends, what it waits for, and how many workers and GPUs end it by an hour.

    Servers of --triton, --postgres and --store are cores; of --triton with --gpu, GPUs. What the rates are, and what
    they leave out: docs/scaling.md.
    """
    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter(f"{picture} does not end in .svg", param_hint="--picture")
    with needs_extra("local"):
        from services.capacity.advice import Prices
        from services.capacity.nights import Habits, after_noon, draw_night
        from services.capacity.study import Asked, study

    known = _rates(rates or [])
    ended: float | None = None
    if night is None:
        habits = Habits(labs, slides, fields, cells, megabytes, first.time(), last.time(), urgent)
        played = draw_night(habits, seed)
    else:
        played, ended = _recorded(night, megabytes)
    asked = Asked(finish_by.time(), gpu, workers, triton, postgres, store, one_machine)
    answer = study(played, known, asked, Prices(core_hour, gpu_hour, gb_month))
    if picture is not None:
        from services.atomic import write_text
        from services.capacity.pictures import draw

        title = f"{_labs(played)}, {len(played.slides):,} slides, at most {answer.workers} workers"
        write_text(picture, draw(title, answer.played, after_noon(finish_by.time())))
    if as_json:
        print_json({**answer.document(), "seed": None if night else seed, "recorded_end": ended})
    else:
        _print(answer, finish_by.time(), ended)


def _rates(paths: list[Path]) -> "Rates":
    from services.capacity.rates import Rates

    known = Rates.read()
    for path in paths:
        known = Rates.read(path) if path.suffix == ".toml" else known.measured(path)
    return known


def _recorded(night: datetime, megabytes: float) -> "tuple[Night, float]":
    from services.capacity.queries import recorded_night
    from services.database.session import make_engine, transaction
    from services.settings import load_settings

    engine = make_engine(load_settings().database_url)
    try:
        with transaction(engine) as session:
            return recorded_night(session, night.date(), megabytes)
    finally:
        engine.dispose()


def _labs(night: "Night") -> str:
    labs = len({slide.lab for slide in night.slides})
    return "1 lab" if labs == 1 else f"{labs:,} labs"


def _print(answer: "Study", finish_by: time, ended: float | None) -> None:
    from services.capacity.nights import on_the_clock

    night, advice, site = answer.night, answer.advice, answer.site
    others = {role: count for role, count in advice.site.servers.items() if role != "triton"}
    out.print(
        f"{_labs(night)}, {len(night.slides):,} slides, {night.fields:,} fields, {night.cells:,} cells;"
        f" first upload {on_the_clock(night.slides[0].arrives)}, last {on_the_clock(night.slides[-1].arrives)}",
        highlight=False,
    )
    out.print(
        f"advised to end by {finish_by:%H:%M}: up to {advice.workers:,} workers; Triton on"
        f" {_triton(advice)}; cores of "
        + ", ".join(f"{role} {n:g}" for role, n in others.items())
        + ("" if advice.ends_in_time else "; that is still too late: see what is used most"),
        highlight=False,
        soft_wrap=True,
    )
    if site.one_machine:
        out.print(f"played on one machine of {site.one_machine:g} cores, {answer.workers} workers", highlight=False)
    out.print(_table(answer))
    if ended is not None:
        begun, predicted = night.slides[0].arrives, answer.played["always"].finished
        off = (predicted - begun) / (ended - begun) - 1
        out.print(
            f"on record: from the first manifest to the last slide {_duration(ended - begun)}; workers always there:"
            f" {_duration(predicted - begun)} predicted, {off:+.0%}",
            highlight=False,
        )
    out.print(
        f"stored in a year of such nights, if nothing is deleted: {answer.year.images_gb:,.0f} GB of images,"
        f" {answer.year.rows_gb:,.0f} GB of rows",
        highlight=False,
    )
    for name, parts in answer.cost.items():
        words = ", ".join(f"{part} {money:,.0f}" for part, money in parts.items())
        out.print(f"a year, workers {name}: {words}", highlight=False, soft_wrap=True)


def _table(answer: "Study") -> "Table":
    from rich.table import Table

    from services.capacity.nights import on_the_clock

    table = Table(
        *("workers", "most", "ends", "worker hours", "half, 95 %, all begin within", "urgent end within"),
        "used while slides wait",
        box=None,
        header_style="bold",
    )
    for name, played in answer.played.items():
        used = sorted(played.used.items(), key=lambda item: -item[1])
        table.add_row(
            name,
            f"{played.most_workers:,}",
            on_the_clock(played.finished),
            f"{played.worker_hours:,.1f}",
            ", ".join(map(_duration, (played.waits.half, played.waits.most, played.waits.all))),
            _duration(played.urgent.all) if played.urgent else "–",
            ", ".join(f"{role} {share:.0%}" for role, share in used[:3]),
        )
    return table


def _triton(advice: "Advice") -> str:
    cores, gpus = f"{advice.triton_cores} cores", f"{advice.triton_gpus} GPUs"
    return f"{gpus} (or {cores})" if advice.site.on_gpu else f"{cores} (or {gpus})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
