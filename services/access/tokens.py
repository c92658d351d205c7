"""The API tokens of labs: issued, rotated, revoked, listed. The secret of one is shown once, and kept as a hash.

A token is `mbt_<id>_<secret>`. The id names its row, so that one hash is checked for a request; the secret is 256
random bits, kept as argon2id.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from argon2 import PasswordHasher
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.access.queries import (
    TokenRow,
    expire_within,
    lab_id,
    lab_is_new,
    set_revoked,
    token_row,
    token_rows,
)
from services.access.scopes import Scope
from services.database.audit import AuditKind, record
from services.database.models import ApiToken
from services.database.session import transaction
from services.errors import PermanentError
from services.intake.privacy import personal_data_in
from services.intake.validation import check_lab_name

PREFIX: Final = "mbt_"
MOST_DAYS: Final = 3650
_ID_CHARACTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # none that is read as another
_ID_LENGTH: Final = 10
_MOST_NAME: Final = 63
_TOKEN: Final = re.compile(rf"{PREFIX}(?P<id>[{_ID_CHARACTERS}]{{{_ID_LENGTH}}})_(?P<secret>[\w-]{{1,100}})", re.ASCII)

# What OWASP asks for of argon2id at least: 19 MiB and two passes, about 20 ms of one core.
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class UnknownLab(PermanentError):
    """No lab of that code is on record."""

    reason = "unknown_lab"


class UnknownToken(PermanentError):
    """No token has that id."""

    reason = "unknown_token"


class TokenNotUsable(PermanentError):
    """The token is revoked or has expired, so that it cannot be rotated or revoked."""

    reason = "token_not_usable"


class BadToken(PermanentError):
    """A token cannot be issued with these properties."""

    reason = "bad_token"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token. `text` is shown to whoever asked for it, once: it cannot be had again."""

    token_id: str
    text: str
    lab: str
    scopes: tuple[Scope, ...]
    expires_at: datetime


def add_lab(engine: Engine, lab: str, *, by: str) -> bool:
    """Put a lab on record before its first batch; whether it was not there.

    Raises:
        BadBatchName: its code cannot be used.
    """
    check_lab_name(lab)
    with transaction(engine) as session:
        new = lab_is_new(session, lab)
        if new:
            record(session, AuditKind.LAB_ADDED, lab=lab, by=by)
    return new


def issue_token(engine: Engine, lab: str, *, name: str, scopes: list[Scope], days: int, by: str) -> Issued:
    """A new token of a lab that is on record. `name` says whose it is, such as `LIMS, ward 3`.

    Raises:
        UnknownLab: the lab is not on record.
        BadToken: no scope, a name that cannot be used, or a life of less than a day or more than ten years.
    """
    if not scopes:
        raise BadToken(f"give the token at least one scope: {', '.join(Scope)}")
    if not 1 <= days <= MOST_DAYS:
        raise BadToken(f"a token lives 1 to {MOST_DAYS} days, not {days}")
    if not 0 < len(name.strip()) <= _MOST_NAME or not name.isprintable():
        raise BadToken(f"name the token in 1 to {_MOST_NAME} printable characters, such as: LIMS, ward 3")
    if (kind := personal_data_in(name)) is not None:
        raise BadToken(f"the token's name looks like {kind}: name a program or a place")
    with transaction(engine) as session:
        key = lab_id(session, lab)
        if key is None:
            raise UnknownLab(f"no lab {lab} is on record: `morphbatch lab add {lab}` puts it there")
        row, issued = _new(lab, key, name.strip(), tuple(dict.fromkeys(scopes)), _in_days(days), by, None)
        session.add(row)
        _audit_issue(session, issued, by, None)
    return issued


def rotate_token(engine: Engine, token_id: str, *, overlap_hours: float, days: int, by: str) -> Issued:
    """A new token in place of a valid one, with the same scopes; the old one is good for `overlap_hours` more.

    Raises:
        UnknownToken: there is none of that id.
        TokenNotUsable: it is revoked or has expired.
    """
    if not 1 <= days <= MOST_DAYS:
        raise BadToken(f"a token lives 1 to {MOST_DAYS} days, not {days}")
    with transaction(engine) as session:
        old = _usable(token_row(session, token_id, locked=True), token_id)
        scopes = tuple(map(Scope, old.scopes))
        row, issued = _new(old.lab, old.lab_id, old.name, scopes, _in_days(days), by, token_id)
        session.add(row)
        expire_within(session, token_id, overlap_hours)
        _audit_issue(session, issued, by, token_id)
    return issued


def revoke_token(engine: Engine, token_id: str, *, by: str) -> TokenRow:
    """End a token at once: the next request that shows it is refused.

    Raises:
        UnknownToken: there is none of that id.
        TokenNotUsable: it is revoked or has expired.
    """
    with transaction(engine) as session:
        row = _usable(token_row(session, token_id, locked=True), token_id)
        set_revoked(session, token_id, by)
        record(session, AuditKind.TOKEN_REVOKED, lab=row.lab, token=token_id, by=by)
    return row


def tokens(engine: Engine, lab: str | None = None) -> list[TokenRow]:
    """The tokens of one lab or of all, also those that are no longer valid."""
    with transaction(engine) as session:
        return token_rows(session, lab)


def split_token(text: str) -> tuple[str, str] | None:
    """Id and secret of a token; `None` of what is not one."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else (found["id"], found["secret"])


def _usable(row: TokenRow | None, token_id: str) -> TokenRow:
    if row is None:
        raise UnknownToken(f"no token has the id {token_id}; `morphbatch lab tokens` lists them")
    if row.state != "valid":
        raise TokenNotUsable(f"token {token_id} of lab {row.lab} is {row.state}; issue another: morphbatch lab token")
    return row


def _in_days(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def _new(
    lab: str, key: int, name: str, scopes: tuple[Scope, ...], expires_at: datetime, by: str, replaces: str | None
) -> tuple[ApiToken, Issued]:
    token_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    secret = secrets.token_urlsafe(32)
    row = ApiToken(
        id=token_id,
        lab_id=key,
        name=name,
        scopes=[scope.value for scope in scopes],
        secret_hash=HASHER.hash(secret),
        created_by=by,
        expires_at=expires_at,
        replaces=replaces,
    )
    return row, Issued(token_id, f"{PREFIX}{token_id}_{secret}", lab, scopes, expires_at)


def _audit_issue(session: Session, issued: Issued, by: str, replaces: str | None) -> None:
    record(
        session,
        AuditKind.TOKEN_ISSUED,
        lab=issued.lab,
        token=issued.token_id,
        scopes=list(issued.scopes),
        expires_at=issued.expires_at.isoformat(),
        replaces=replaces,
        by=by,
    )
