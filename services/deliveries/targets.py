"""The targets of a lab's results. Only operators set them: a lab could else have the service send anywhere."""

import base64
import ipaddress
import re
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Engine

from services.database.audit import AuditKind, record
from services.database.session import transaction
from services.deliveries.http import SIGNING_KEY
from services.deliveries.queries import TargetRow, end_target, put_target, target_rows
from services.deliveries.tls import tls_context
from services.errors import PermanentError

_SECRET_BYTES: Final = 32
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")


class DeliveryKind(StrEnum):
    """`webhook`: that a report is issued; `mllp`: each specimen as HL7 v2.5.1; `fhir`: each as a FHIR transaction."""

    WEBHOOK = "webhook"
    MLLP = "mllp"
    FHIR = "fhir"


class BadTarget(PermanentError):
    """Nothing can be delivered to such an address."""

    reason = "bad_target"


def set_target(
    engine: Engine,
    lab: str,
    kind: DeliveryKind,
    address: str,
    *,
    by: str,
    token: str | None = None,
    ca_file: Path | None = None,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
) -> str | None:
    """Have all reports of the lab that are issued from now on delivered to `address`; one that is there is changed.

    `token` is the bearer token of a FHIR server. Returns the secret by which a receiver checks webhooks: it is new each
    time, and shown nowhere else.

    Raises:
        BadTarget: the address is malformed, or would carry results in the clear.
        UnusableCertificate: a file of certificates cannot be read here.
    """
    _check(kind, address)
    files = [None if path is None else str(path.resolve()) for path in (ca_file, certificate_file, key_file)]
    tls_context(*files)
    secret = token
    if kind is DeliveryKind.WEBHOOK:
        secret = SIGNING_KEY + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    ca, certificate, key = files
    with transaction(engine) as session:
        put_target(session, lab, kind, address, secret=secret, ca_file=ca, certificate_file=certificate, key_file=key)
        record(session, AuditKind.DELIVERY_TARGET_SET, lab=lab, to=kind, address=address, active=True, by=by)
    return secret if kind is DeliveryKind.WEBHOOK else None


def remove_target(engine: Engine, lab: str, kind: DeliveryKind, address: str, *, by: str) -> None:
    """Have no new report delivered to it. What waits is still sent.

    Raises:
        BadTarget: the lab has no such target.
    """
    with transaction(engine) as session:
        if not end_target(session, lab, kind, address):
            raise BadTarget(f"lab {lab} has no {kind} target {address}; `morphbatch deliveries targets` lists them")
        record(session, AuditKind.DELIVERY_TARGET_SET, lab=lab, to=kind, address=address, active=False, by=by)


def targets(engine: Engine) -> list[TargetRow]:
    """All targets, by lab, kind and address, also those that nothing new is delivered to."""
    with transaction(engine) as session:
        return target_rows(session)


def _check(kind: DeliveryKind, address: str) -> None:
    if kind is DeliveryKind.MLLP:
        found = _HOST_AND_PORT.fullmatch(address)
        if found is None or not 0 < int(found[2]) < 65536:
            raise BadTarget(f"{address}: give host:port")
        return
    try:
        url = urlsplit(address)
        right = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        right = False
    if not right or address != address.strip() or "@" in urlsplit(address).netloc:
        raise BadTarget(f"{address}: give a URL without a password in it, such as https://lims.example.org/results")
    if url.scheme == "http" and not _is_this_machine(url.hostname or ""):
        raise BadTarget(f"{address}: give an https URL; http would carry what is sent in the clear")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
