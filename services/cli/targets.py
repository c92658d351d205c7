"""`morphbatch lab deliver`: where the results of a lab are delivered to."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from services.cli.console import err, out

commands = typer.Typer()


@commands.command()
def deliver(
    lab: Annotated[str, typer.Argument(metavar="LAB", help="The lab's code, the first folder under incoming/.")],
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Tell this URL of every report.")] = None,
    mllp: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Send each specimen as HL7 v2.5.1, by MLLP over TLS.")
    ] = None,
    fhir: Annotated[
        str | None, typer.Option(metavar="URL", help="Post each specimen to this FHIR R4 server, as a transaction.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File with the bearer token of the FHIR server.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="PEM file by which its certificate is checked; else the system's."
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of our certificate, if it asks for one.")
    ] = None,
    key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of its key.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Deliver no new report to it; what waits is still sent.")
    ] = False,
) -> None:
    """Have the results of a lab delivered to one target, from the next report on. Call it again for each further one.

    The files must lie under the same paths where the control worker runs.
    """
    from services.database.session import make_engine
    from services.deliveries.targets import DeliveryKind, remove_target, set_target
    from services.documents import read_text
    from services.errors import ConfigurationError
    from services.intake.validation import check_lab_name
    from services.settings import load_settings

    given = {
        kind: address for kind, address in zip(DeliveryKind, (webhook, mllp, fhir), strict=True) if address is not None
    }
    if len(given) != 1:
        raise typer.BadParameter("name one target: --webhook URL, --mllp HOST:PORT or --fhir URL")
    [(kind, address)] = given.items()
    check_lab_name(lab)
    engine = make_engine(load_settings().database_url)
    if remove:
        remove_target(engine, lab, kind, address, by=getpass.getuser())
        out.print(f"no new report of lab {lab} goes to {address}", highlight=False)
        return
    token = read_text(token_file, ConfigurationError).strip() if token_file else None
    secret = set_target(
        *(engine, lab, kind, address),
        by=getpass.getuser(),
        token=token,
        ca_file=ca,
        certificate_file=certificate,
        key_file=key,
    )
    err.print(f"from now on each report of lab {lab} goes to {address}", highlight=False)
    if secret is not None:
        err.print("the secret of its signatures follows. Store it now: it is not shown again", highlight=False)
        out.print(secret, highlight=False, soft_wrap=True)
