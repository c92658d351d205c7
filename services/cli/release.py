"""`morphbatch release …`: releases of the networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.classifier import build
from services.cli.console import err, out, print_json

if TYPE_CHECKING:
    from services.local.releases import Releases

commands = typer.Typer(no_args_is_help=True)
commands.command()(build)

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")]


def _releases() -> "Releases":
    from services.database.session import make_engine
    from services.local.releases import Releases
    from services.settings import load_settings
    from services.storage import connect_store

    settings = load_settings()
    return Releases(make_engine(settings.database_url), connect_store(settings), settings.home / "triton")


@commands.command()
def install(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of a release to make the active one.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Make a release active and ready for Triton. Without FOLDER: see to the active one; untrained if there is none."""
    done = _releases().install(folder)
    release = done.release
    what = [
        word
        for word, happened in (
            ("recorded", done.recorded),
            ("published", done.published),
            ("laid out for Triton", done.laid_out),
        )
        if happened
    ]
    err.print(f"release {release.id} ({release.kind}): {', '.join(what) or 'nothing to do'}", highlight=False)
    if done.laid_out:
        err.print("a Triton that runs already serves it after a restart")


@commands.command(name="list")
def list_(as_json: _JSON = False) -> None:
    """Every release on record, newest first."""
    from rich.table import Table

    rows = _releases().rows()
    if as_json:
        print_json(rows)
        return
    table = Table("release", "kind", "active", "recorded", "crop", "α")
    for row in rows:
        table.add_row(
            row["id"],
            row["kind"],
            "yes" if row["active"] else "",
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            f"{row['crop_px']} px, {row['crop_um']} µm",
            str((row["fusion"] or {}).get("alpha", "")),
        )
    out.print(table)


@commands.command()
def verify(as_json: _JSON = False) -> None:
    """Check every byte of the active release, its copy in the object store, and what is laid out for Triton."""
    release = _releases().verify()
    if as_json:
        print_json({"id": release.id, "kind": release.kind, "whole": True})
        return
    out.print(f"release {release.id} ({release.kind}) is whole", highlight=False)
