"""`morphbatch up`, `down`, `status`, `doctor` and `migrate`: the stack on this machine."""

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from services.cli.console import err, out, print_json, program
from services.cli.options import JsonOption

commands = typer.Typer()

Services = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Only these (postgres, redis, s3, …); default: all.")
]

_COLOURS = {"ready": "green", "starting": "yellow", "crashed": "red", "down": "dim"}


@commands.command()
def up(
    services: Services = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground, and stop everything on Ctrl-C.")
    ] = False,
    s3: Annotated[
        Literal["minio", "rclone"] | None,
        typer.Option(help="S3 server; default: the one this home has; for a new home MinIO, if found."),
    ] = None,
) -> None:
    """Start the stack, or those of its services that do not run, and wait until all are ready."""
    from services.local.control import is_running, start_stack
    from services.local.installation import SERVICES
    from services.local.settings import home

    folder = home()
    # A closed terminal must not leave half a start behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _interruptible(folder, foreground=foreground):
        with err.status("starting") as status:
            state, adopted = start_stack(
                folder,
                services or SERVICES,
                s3,
                attached=foreground,
                on_change=lambda now: status.update(_progress(now)),
            )
        if adopted:
            err.print(f"the stack has been running since {state['started_at'][:19]}Z; all services answer")
        _print_services(state)
        _print_where(folder)
        while foreground and is_running(folder):
            time.sleep(0.2)
    if foreground:
        raise typer.Exit(1)  # it ended, and nobody asked for it


@commands.command()
def down(services: Services = None) -> None:
    """Stop the stack: workers first, which finish the slides they are working on; Postgres last."""
    from services.local.control import change_services, stop_stack
    from services.local.settings import home

    if services:
        _print_services(change_services(home(), stop=services))
        return
    began = time.monotonic()
    with err.status("stopping"):
        ran = stop_stack(home())
    err.print(f"stopped in {time.monotonic() - began:.1f} s" if ran else f"no stack runs in {home()}")


@commands.command()
def status(as_json: JsonOption = False) -> None:
    """Show which services run, since when and how often they crashed, and the number of batches and slides by state."""
    from services.local.control import read_state
    from services.local.settings import home

    state = read_state(home())
    for report in state["services"].values():
        since = report["started_at"]
        report["uptime_s"] = (
            round((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()) if since else None
        )
    postgres_runs = state["services"].get("postgres", {}).get("state") == "ready"
    work = _count_work() if postgres_runs else None
    if as_json:
        keys = ("state", "error", "started_at", "s3", "services")
        print_json({"home": home(), **{key: state.get(key) for key in keys}, "work": work})
        return
    out.print(f"stack in {home()}: [bold]{state['state']}[/]", highlight=False)
    if state["error"]:
        out.print(state["error"], style="red", highlight=False, markup=False)
    _print_services(state)
    for kind, counts in (work or {}).items():
        out.print(f"{kind}: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "none"), highlight=False)


@commands.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check every dependency, and say how to fix what fails. Exits 1 if a check fails."""
    from services.cli.doctor import examine
    from services.local.settings import home
    from services.settings import load_settings

    findings = examine(load_settings(), home())
    if as_json:
        print_json([finding.as_record() for finding in findings])
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[bold red]FAIL[/]"
            out.print(f"{mark} {finding.check}: ", end="", highlight=False)
            out.print(finding.found, markup=False, highlight=False, soft_wrap=True)
            if finding.fix:
                out.print(f"     → {finding.fix}", markup=False, highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@commands.command()
def migrate() -> None:
    """Bring the database to the revision that this version requires."""
    from migrations.run import head_revision
    from migrations.run import migrate as bring_up_to_date
    from services.settings import load_settings

    bring_up_to_date(load_settings())
    err.print(f"the database is at revision {head_revision()}")


@contextlib.contextmanager
def _interruptible(folder: Path, *, foreground: bool) -> Iterator[None]:
    """Ctrl-C ends what this command started, and nothing that ran before it."""
    try:
        yield
    except KeyboardInterrupt:
        from services.local.control import stop_stack

        if foreground:
            with err.status("stopping"):
                stop_stack(folder)
        raise typer.Exit(130) from None


def _progress(state: dict[str, Any]) -> str:
    waiting = [name for name, report in state["services"].items() if report["state"] == "starting"]
    return f"starting {', '.join(waiting)}" if waiting else "starting"


def _print_services(state: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("service", "state", "port", "pid", "restarts", box=None, header_style="bold")
    for name, report in state["services"].items():
        colour = _COLOURS[report["state"]]
        port, pid = (str(report[key] or "–") for key in ("port", "pid"))
        table.add_row(name, f"[{colour}]{report['state']}[/]", port, pid, str(report["restarts"]))
    out.print(table, soft_wrap=True)
    for name, report in state["services"].items():
        if report["trouble"]:
            out.print(f"{name}: {report['trouble']}", style="red", markup=False, highlight=False)


def _print_where(folder: Path) -> None:
    out.print(f"logs:      {folder / 'logs'}/SERVICE.log", soft_wrap=True, highlight=False)
    out.print(f"settings:  {folder / 'stack.env'}", soft_wrap=True, highlight=False)
    out.print(f"SQL:       {program()} sql", soft_wrap=True, highlight=False)


def _count_work() -> dict[str, dict[str, int]]:
    from services.batches.progress import count_work
    from services.database.session import make_engine
    from services.settings import load_settings

    engine = make_engine(load_settings().database_url)
    try:
        return count_work(engine)
    finally:
        engine.dispose()
