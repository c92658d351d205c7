"""`morphbatch submit`: send a folder of images as a batch, the way a LIMS does."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.console import COULD_NOT, bars, err, fail, out, print_json
from services.cli.options import JsonOption, finite

if TYPE_CHECKING:
    from rich.progress import Progress

    from services.intake.folder import Delivery
    from services.intake.problems import ManifestRejected
    from services.intake.upload import Delivered
    from services.settings import Settings

commands = typer.Typer()

POLL_S = 1.0
SHOWN_LINES = 20


@commands.command()
def submit(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of the batch: a sub-folder per slide; may hold a manifest.json."),
    ],
    lab: Annotated[
        str | None, typer.Option("--lab", help="The lab's code; required unless DIR/manifest.json states it.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Batch id; default: made of DIR's name and content.")
    ] = None,
    um_per_px: Annotated[
        float | None,
        typer.Option(
            "--um-per-px", help="Micrometres per pixel; required unless DIR/manifest.json states it.", callback=finite
        ),
    ] = None,
    stain: Annotated[str | None, typer.Option("--stain", help="Name of the stain; default: `unknown`.")] = None,
    collected_at: Annotated[
        str | None,
        typer.Option(
            "--collected-at",
            metavar="TIME",
            help="When the specimens were collected, with the offset of the lab's clock: 2026-11-23T08:40:00+01:00."
            " DIR/manifest.json may state it for each slide; default: unknown.",
            show_default=False,
        ),
    ] = None,
    urgent: Annotated[
        bool,
        typer.Option("--urgent", help="Have it pass other batches that wait, of all labs and at any time of day."),
    ] = False,
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Submit without the images that cannot be taken; each is listed.")
    ] = False,
    api: Annotated[
        str | None,
        typer.Option(
            "--api",
            metavar="URL",
            help="Send over HTTP, with --token-file, to the service at URL; default: into the object store.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="File that holds the lab's token, alone.", show_default=False
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the batch to its end; exits 0 only if it is complete.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload DIR as a batch: checksums, fields, the manifest last. If interrupted, rerun to resume."""
    from services.database.states import BatchState
    from services.intake.problems import ManifestRejected

    if (api is None) != (token_file is None):
        raise typer.BadParameter("--api and --token-file belong together")
    try:
        delivery = _read(folder, lab, batch, um_per_px, stain, collected_at, urgent, skip_unusable)
    except ManifestRejected as error:
        _show_problems(folder, error, as_json)
        raise typer.Exit(COULD_NOT) from error
    if not as_json:
        _show_left_out(folder, delivery)
    if api is not None and token_file is not None:
        state = _send_over_http(delivery, api, token_file, wait=wait)
    else:
        state = send(delivery, wait=wait)
    _show_result(folder, delivery, state, as_json)
    if wait and state != BatchState.COMPLETE:
        raise typer.Exit(1)


def send(delivery: "Delivery", *, wait: bool) -> str:
    """Upload and announce a delivery; the state its batch ended in, or `uploaded` when nobody waits for that."""
    from services.dispatch import connect_publisher
    from services.intake.upload import deliver
    from services.settings import load_settings
    from services.storage import connect_store

    settings = load_settings()
    store, publisher = connect_store(settings), connect_publisher(settings.broker_url)
    with _progress() as progress:
        bar = progress.add_task("uploading", total=delivery.size)
        delivered = deliver(store, publisher, delivery, lambda size: progress.advance(bar, size))
    if delivered.unannounced:
        err.print(
            "[yellow]note[/]: the broker is down; "
            f"the sweep finds the batch within {settings.sweep_seconds} s after it returns"
        )
    return _wait_for_end(settings, delivered) if wait else "uploaded"


def _send_over_http(delivery: "Delivery", url: str, token_file: Path, *, wait: bool) -> str:
    from services.client.client import Client
    from services.client.submit import read_token, send_folder

    with Client(url, read_token(token_file)) as client, _progress() as progress:
        bar = progress.add_task("uploading", total=delivery.size)
        batch = delivery.manifest.as_json()
        files = {file.key: (file.path, file.size) for file in delivery.files}
        state = send_folder(client, batch, files, lambda size: progress.advance(bar, size))
        if not wait:
            return "uploaded"
        with err.status("waiting for the end of the batch"):
            *_, state = client.follow(state.batch_id)
    for problem in state.problems:
        err.print(f"{problem['path']}: {problem['message']} [{problem['reason']}]", markup=False, highlight=False)
    for slide in state.document["slides_in_trouble"]:
        said = f"{slide['slide_id']}: {slide['state']}: {slide['detail']} [{slide['reason']}]"
        err.print(said, markup=False, highlight=False)
    return state.state


def _read(
    folder: Path,
    lab: str | None,
    batch: str | None,
    um_per_px: float | None,
    stain: str | None,
    collected_at: str | None,
    urgent: bool,
    skip_unusable: bool,
) -> "Delivery":
    from services.intake.folder import read_folder

    with _progress() as progress:
        bar = progress.add_task("checksums", total=None)
        return read_folder(
            folder,
            lab=lab,
            batch_id=batch,
            um_per_px=um_per_px,
            stain=stain,
            collected_at=collected_at,
            urgent=urgent,
            without_lost=skip_unusable,
            advance=lambda size: progress.advance(bar, size),
        )


def _progress() -> "Progress":
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    what = TextColumn("{task.description:>10}")
    return bars(what, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def _wait_for_end(settings: "Settings", delivered: "Delivered") -> str:
    """The state in which the batch ends. It shows the slides meanwhile."""
    from services.cli.batches import follow
    from services.database.session import make_engine, transaction
    from services.errors import OutageError
    from services.intake.upload import taken_in
    from services.reporting.queries import (
        images_of_another_specimen,
        slides_of_doubtful_scale,
        slides_of_images_sent_before,
    )

    engine = make_engine(settings.database_url)
    started, told = time.monotonic(), False
    with err.status("waiting for the service to register the batch"):
        while True:
            try:
                batch_key = taken_in(engine, delivered)
            except OutageError as error:
                err.print(f"[yellow]{error}; still trying[/]")
                batch_key = None
            if batch_key is not None:
                break
            if not told and time.monotonic() - started > settings.sweep_seconds + 30:
                err.print(
                    "[yellow]note[/]: the batch is not registered yet; is a worker running? `morphbatch doctor` checks"
                )
                told = True
            time.sleep(POLL_S)
    ended = follow(engine, batch_key)
    with transaction(engine) as session:
        doubted = slides_of_doubtful_scale(session, batch_key)
        sent_before = slides_of_images_sent_before(session, batch_key)
        mixed_up = list(images_of_another_specimen(session, batch_key))
    engine.dispose()
    if doubted:
        err.print(
            f"[yellow]check um_per_px[/]: the scale of {len(doubted)} slide(s) is doubtful: {_first(doubted)}; the"
            " flags in the report say why. If it is wrong, submit the images with the right one as a new batch",
            highlight=False,
        )
    if sent_before:
        err.print(
            f"[yellow]images came twice[/]: {len(sent_before)} slide(s) have images that an earlier slide has too:"
            f" {_first(sent_before)}; the report names them",
            highlight=False,
        )
    if mixed_up:
        err.print(
            f"[yellow]whose images?[/] {len(mixed_up)} slide(s) have images that a slide of another specimen has too:"
            f" {_first(mixed_up)}; find out whose they are: both specimens count their cells",
            highlight=False,
        )
    return ended.state


def _first(slides: list[str]) -> str:
    return ", ".join(slides[:5]) + (", …" if len(slides) > 5 else "")


def _show_result(folder: Path, delivery: "Delivery", state: str, as_json: bool) -> None:
    manifest = delivery.manifest
    result = {
        "lab": manifest.lab,
        "batch": manifest.batch_id,
        "slides": len(manifest.slides),
        "fields": manifest.field_count,
        "bytes": delivery.size,
        "state": state,
        "left_out": [
            {"file": entry.path.relative_to(folder).as_posix(), "why": entry.why, "image": entry.lost}
            for entry in delivery.left_out
        ],
    }
    if as_json:
        print_json(result)
        return
    err.print(
        f"{state}: {result['slides']} slides, {result['fields']} fields, {delivery.size / 1e6:.1f} MB, "
        f"lab {manifest.lab}",
        highlight=False,
    )
    out.print(manifest.batch_id, highlight=False, soft_wrap=True)


def _show_problems(folder: Path, rejected: "ManifestRejected", as_json: bool) -> None:
    if as_json:
        print_json({"state": "not_submitted", "problems": [problem.as_json() for problem in rejected.problems]})
    lines = [f"{folder} is not submitted, for {len(rejected.problems)} problem(s):"]
    lines += [f"  {problem.path or 'manifest'}: {problem.message} [{problem.reason}]" for problem in rejected.problems]
    if any(problem.reason == "image_left_out" for problem in rejected.problems):
        lines.append("  --skip-unusable submits the batch without the images that cannot be taken")
    fail(rejected.reason, "\n".join(lines))


def _show_left_out(folder: Path, delivery: "Delivery") -> None:
    """Every image that is left out, and the first of the other files."""
    others = [entry for entry in delivery.left_out if not entry.lost]
    for entry in (*(entry for entry in delivery.left_out if entry.lost), *others[:SHOWN_LINES]):
        err.print(f"left out: {entry.path.relative_to(folder)}: {entry.why}", markup=False, highlight=False)
    if len(others) > SHOWN_LINES:
        err.print(f"left out: {len(others) - SHOWN_LINES} more files, none of them an image", highlight=False)
