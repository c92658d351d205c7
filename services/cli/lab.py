"""`morphbatch lab`: the labs on record, their time zones and hours, which of them test, and their tokens."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.access.scopes import Scope
from services.cli.console import err, out, print_json
from services.cli.options import JsonOption

if TYPE_CHECKING:
    from services.access.tokens import Issued
    from services.database.session import Engine

commands = typer.Typer(no_args_is_help=True)

LabArgument = Annotated[str, typer.Argument(metavar="LAB", help="The lab's code, the first folder under incoming/.")]
TokenArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the token, as `lab tokens` lists it.")]
DaysOption = Annotated[int, typer.Option("--days", min=1, max=3650, help="Days until the token expires.")]


@commands.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """List the labs, their time zones, when their slides are started, their batches, and which of them test."""
    from dataclasses import asdict

    from rich.table import Table

    from services.intake.labs import labs, shown_window

    found = labs(_engine())
    if as_json:
        print_json([asdict(row) for row in found])
        return
    table = Table("lab", "time zone", "slides are started", "batches", "tests", box=None, header_style="bold")
    for row in found:
        window = shown_window(row.window)
        started = window if row.paused_at is None else f"{window}; paused since {row.paused_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(row.lab, row.time_zone, started, str(row.batches), "yes" if row.tests else "")
    out.print(table)


@commands.command(name="set")
def set_(
    lab: LabArgument,
    time_zone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="IANA name of its time zone, such as Europe/Berlin.", show_default=False),
    ] = None,
    testing: Annotated[
        bool | None,
        typer.Option(
            "--testing/--no-testing",
            help="Send its LIMS the results of any release, marked as test data; else only those of trained ones.",
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="FROM-TO",
            help="When its slides are started, such as 20:00-06:00 by its clock; `always`: at any time.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Set the time zone by whose clock a lab's days begin, and the hours within which its slides are started.

    Both may be set before the lab sends its first batch. Until then days are those of UTC, and slides are started at
    any time. Another time zone moves the days, nights and months of earlier batches too. Urgent batches ignore the
    hours, and a slide that was started goes on after them.
    """
    from services.intake.labs import set_lab_tests, set_time_zone, set_window

    if time_zone is None and testing is None and window is None:
        raise typer.BadParameter("say what to set: --time-zone ZONE, --window FROM-TO, --testing or --no-testing")
    engine = _engine()
    if time_zone is not None:
        before = set_time_zone(engine, lab, time_zone, by=getpass.getuser())
        out.print(f"days of lab {lab} begin by the clock of {time_zone}; before: {before}", highlight=False)
    if window is not None:
        before = set_window(engine, lab, window, by=getpass.getuser())
        out.print(f"slides of lab {lab} are started {window} by its clock; before: {before}", highlight=False)
    if testing is not None:
        set_lab_tests(engine, lab, testing, by=getpass.getuser())
        sent = "of any release, marked as test data" if testing else "of trained releases only"
        out.print(f"results {sent}, go out to the LIMS of lab {lab}", highlight=False)


@commands.command()
def add(lab: LabArgument, as_json: JsonOption = False) -> None:
    """Put a lab on record before its first batch, so that it can be given a token."""
    from services.access.tokens import add_lab

    new = add_lab(_engine(), lab, by=getpass.getuser())
    if as_json:
        print_json({"lab": lab, "added": new})
    else:
        out.print(f"lab {lab} {'is on record' if new else 'was on record before'}", highlight=False)


@commands.command()
def token(
    lab: LabArgument,
    name: Annotated[str, typer.Option("--name", help="Whose it is, such as: LIMS, ward 3. Never a person.")],
    scope: Annotated[
        list[Scope],
        typer.Option("--scope", help="What it allows; give the option once for each scope.", show_default=False),
    ],
    days: DaysOption = 365,
    as_json: JsonOption = False,
) -> None:
    """Issue a token for the HTTP service. It is printed once, to stdout; morphbatch keeps only a hash of it."""
    from services.access.tokens import issue_token

    issued = issue_token(_engine(), lab, name=name, scopes=scope, days=days, by=getpass.getuser())
    _show_token(issued, as_json)


@commands.command()
def rotate(
    token_id: TokenArgument,
    overlap_hours: Annotated[
        float, typer.Option("--overlap-hours", min=0, max=24 * 90, help="Hours for which the old token stays valid.")
    ] = 24,
    days: DaysOption = 365,
    as_json: JsonOption = False,
) -> None:
    """Issue a token with the scopes of another one, which ends after --overlap-hours."""
    from services.access.tokens import rotate_token

    issued = rotate_token(_engine(), token_id, overlap_hours=overlap_hours, days=days, by=getpass.getuser())
    _show_token(issued, as_json)


@commands.command()
def revoke(token_id: TokenArgument, as_json: JsonOption = False) -> None:
    """End a token: the next request that shows it is refused."""
    from services.access.tokens import revoke_token

    row = revoke_token(_engine(), token_id, by=getpass.getuser())
    if as_json:
        print_json({"token": token_id, "lab": row.lab, "revoked": True})
    else:
        out.print(f"token {token_id} ({row.name}) of lab {row.lab} is revoked", highlight=False)


@commands.command(name="tokens")
def tokens_(
    lab: Annotated[str | None, typer.Argument(metavar="[LAB]", help="Of this lab only.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """List tokens: whose, what they allow, until when. A token itself cannot be shown again."""
    from rich.table import Table

    from services.access.tokens import tokens

    found = tokens(_engine(), lab)
    if as_json:
        print_json(
            [
                {
                    "token": row.token_id, "lab": row.lab, "name": row.name, "scopes": row.scopes, "state": row.state,
                    "created_at": row.created_at.isoformat(), "created_by": row.created_by,
                    "expires_at": row.expires_at.isoformat(), "replaces": row.replaces,
                }
                for row in found
            ]
        )  # fmt: skip
        return
    table = Table("token", "lab", "name", "scopes", "state", "expires (UTC)", box=None, header_style="bold")
    for row in found:
        table.add_row(
            row.token_id, row.lab, row.name, " ".join(row.scopes), row.state, f"{row.expires_at:%Y-%m-%d %H:%M}"
        )
    out.print(table)


@commands.command()
def policy(
    lab: LabArgument,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the policy and a key with it in MinIO, as its administrator.")
    ] = False,
    admin_key: Annotated[
        str | None,
        typer.Option("--admin-key", help="Access key of MinIO's administrator; default: the service's own key."),
    ] = None,
    admin_secret_file: Annotated[
        Path | None, typer.Option("--admin-secret-file", help="File that holds the secret of --admin-key, alone.")
    ] = None,
) -> None:
    """Print the policy of the object store for a lab's key: write its uploads, read its results, nothing else."""
    from services.access.store_policy import apply_to_minio, as_text, lab_policy, policy_name
    from services.documents import read_text
    from services.errors import ConfigurationError
    from services.settings import load_settings

    if (admin_key is None) != (admin_secret_file is None):
        raise typer.BadParameter("--admin-key and --admin-secret-file belong together")
    settings = load_settings()
    if not apply:
        out.print(as_text(lab_policy(lab, settings.s3_bucket)), highlight=False, soft_wrap=True)
        err.print(
            f"On MinIO: `morphbatch lab policy {lab} --apply`, or save it as policy.json and run"
            f" `mc admin policy create STORE {policy_name(lab)} policy.json`, `mc admin user add STORE lab-{lab}` and"
            f" `mc admin policy attach STORE {policy_name(lab)} --user lab-{lab}`."
            " On AWS: attach it to the lab's user.",
            highlight=False,
        )
        return
    key, secret = settings.s3_access_key, settings.s3_secret_key.get_secret_value()
    if admin_key is not None and admin_secret_file is not None:
        key, secret = admin_key, read_text(admin_secret_file, ConfigurationError).strip()
    made = apply_to_minio(settings, lab, admin_key=key, admin_secret=secret)
    err.print(
        f"key {made.access_key} with policy {made.policy}. Store its secret now: it is not shown again", highlight=False
    )
    out.print(made.secret_key, highlight=False, soft_wrap=True)


@commands.command(name="sql-role")
def sql_role(lab: LabArgument) -> None:
    """Print what a superuser of Postgres runs in psql, so that a lab reads its own rows in schema lab_reporting."""
    from services.access.sql_role import statements

    for line in statements(lab):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _engine() -> "Engine":
    from services.database.session import make_engine
    from services.settings import load_settings

    return make_engine(load_settings().database_url)


def _show_token(issued: "Issued", as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "token": issued.token_id, "text": issued.text, "lab": issued.lab, "scopes": issued.scopes,
                "expires_at": issued.expires_at.isoformat(),
            }
        )  # fmt: skip
        return
    err.print(
        f"token {issued.token_id} of lab {issued.lab}: {' '.join(issued.scopes)}, until"
        f" {issued.expires_at:%Y-%m-%d %H:%M} UTC. Store it now: it is not shown again",
        highlight=False,
    )
    out.print(issued.text, highlight=False, soft_wrap=True)
