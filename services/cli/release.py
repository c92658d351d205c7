"""`morphbatch release …`: publish, list and activate releases of the networks."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.classifier import build
from services.cli.compile import compile_, lay_out, verify
from services.cli.console import err, out, print_json
from services.cli.options import JsonOption, MinimumOption
from services.cli.reapply import reapply

if TYPE_CHECKING:
    from services.releases.schema import Release
    from triton_models.layout.served_here import ServedHere

commands = typer.Typer(no_args_is_help=True)
commands.command()(build)
for _name, _command in (("compile", compile_), ("verify", verify), ("lay-out", lay_out), ("reapply", reapply)):
    commands.command(_name)(_command)


def releases_here() -> "ServedHere":
    from services.database.session import make_engine
    from services.local.settings import home, load_local_settings
    from services.settings import load_settings
    from services.storage import connect_store
    from triton_models.layout.served_here import ServedHere

    settings = load_settings()
    engine, store = make_engine(settings.database_url), connect_store(settings)
    return ServedHere(engine, store, home() / "triton", load_local_settings().triton_form)


@commands.command()
def install(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of a release: publish and activate it.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Ensure that the active release is complete and laid out for Triton; without one, activate the shipped release."""
    if folder is not None:
        _activate(_publish(folder).id)
        return
    # Part of every start of the stack, before Triton's: nothing is restarted here.
    done = releases_here().install()
    laid_out = "laid out for Triton" if done.laid_out else "nothing to do"
    err.print(f"release {done.release.id} ({done.release.kind}): {laid_out}", highlight=False)


@commands.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of the release.", exists=True, file_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Verify a release, copy it to the object store and record it. This does not activate it."""
    release = _publish(folder)
    if as_json:
        print_json({"id": release.id, "kind": release.kind})


@commands.command()
def activate(
    release_id: Annotated[str, typer.Argument(metavar="ID", help="A published release; see `release list`.")],
    as_json: JsonOption = False,
) -> None:
    """Switch the service to a published release, or back to an earlier one. No slide is lost.

    New and queued slides are analysed under it; a running slide ends under the old release or starts again under the
    new one. The embedded stack's Triton is restarted; the workers wait for it.
    """
    outcome = _activate(release_id)
    if as_json:
        print_json(outcome)


@commands.command()
def derive(
    release_id: Annotated[str, typer.Argument(metavar="ID", help="A published release; see `release list`.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the new release; must not exist.")],
    fusion: Annotated[
        Path | None, typer.Option(help="fusion.json of the other fusion.", exists=True, dir_okay=False)
    ] = None,
    minimum_crop_inside_share: MinimumOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release of the same networks with another fusion, or another rule of which cells count.

    `morphbatch release reapply` applies it to old cells.
    """
    from services.releases.derive import derive_release

    if fusion is None and minimum_crop_inside_share is None:
        raise typer.BadParameter("give --fusion, --minimum-crop-inside-share or both: else nothing would differ")
    releases = releases_here().registry
    release = derive_release(
        releases.files(releases.recorded(release_id)),
        folder,
        fusion_json=fusion,
        minimum_crop_inside_share=minimum_crop_inside_share,
    )
    if as_json:
        print_json({"folder": str(folder), **release.document()})
    else:
        out.print(f"release {release.id} in {folder}", highlight=False)


def _publish(folder: Path) -> "Release":
    done = releases_here().registry.publish(folder)
    what = [word for word, happened in (("recorded", done.recorded), ("published", done.published)) if happened]
    err.print(
        f"release {done.release.id} ({done.release.kind}): {', '.join(what) or 'already published'}", highlight=False
    )
    return done.release


def _activate(release_id: str) -> dict[str, Any]:
    from services.batches.switching import switch_release
    from services.database.session import make_engine
    from services.dispatch import connect_publisher
    from services.local.control import restart_service
    from services.local.settings import home
    from services.settings import load_settings

    settings = load_settings()
    laid_out = False

    def activate() -> str | None:
        nonlocal laid_out
        done = releases_here().activate(release_id, by=getpass.getuser())
        laid_out = done.laid_out
        err.print(f"release {release_id} ({done.release.kind}) is active")
        return done.before

    def restart() -> bool:
        return _serves_another(release_id, laid_out=laid_out) and restart_service(home(), "triton")

    engine = make_engine(settings.database_url)
    try:
        publisher = connect_publisher(settings.broker_url)
        done = switch_release(engine, publisher, activate, restart)
    finally:
        engine.dispose()
    err.print(f"{done.slides_moved} queued slides moved to it")
    if done.unpublished:
        err.print(f"[yellow]note[/]: {done.unpublished}; the sweep publishes the slides when the broker is back")
    if done.restarted:
        err.print("Triton was restarted and serves it")
    elif _serves_another(release_id, laid_out=False):
        err.print(
            "[yellow]note[/]: Triton does not serve it yet; slides wait until it is restarted from the repository"
        )
    return {
        "id": release_id,
        "before": done.before,
        "slides_moved": done.slides_moved,
        "triton_restarted": done.restarted,
    }


def _serves_another(release_id: str, *, laid_out: bool) -> bool:
    """Whether Triton must be restarted for the release: what it serves was laid out before, or is another."""
    from services.errors import MorphbatchError
    from services.inference.networks import Networks
    from services.settings import load_settings

    if laid_out:
        return True
    settings = load_settings()
    line = Networks(settings.triton_endpoint, batch=settings.inference_batch, in_flight=1, timeout_s=10)
    try:
        return line.served_release().release_id != release_id
    except MorphbatchError:  # down, or it serves what this version cannot use
        return True
    finally:
        line.close()


@commands.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """Every release on record, newest first."""
    from rich.table import Table

    from services.releases.fusion import weight_text

    rows = releases_here().registry.rows()
    if as_json:
        told = ("crop_px", "crop_um", "fusion", "metrics")
        print_json(
            [
                {"id": row.release_id, "kind": row.kind, "active": row.active, "created_at": row.created_at}
                | {name: row.document.get(name) for name in told}
                for row in rows
            ]
        )
        return
    table = Table("release", "kind", "active", "recorded", "crop", "α")
    for row in rows:
        crop_px, crop_um, fusion = (row.document.get(name) for name in ("crop_px", "crop_um", "fusion"))
        table.add_row(
            row.release_id,
            row.kind,
            "yes" if row.active else "",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            f"{crop_px} px, {crop_um} µm",
            weight_text(fusion["alpha"]) if fusion else "",
        )
    out.print(table)
