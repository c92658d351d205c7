"""Checks the token that a request shows.

Its row is read for every request, so that a token that is revoked, or has expired, is refused from the next request on.
Only the argon2id check is remembered: that this secret belongs to this hash never becomes untrue.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Final

from argon2.exceptions import VerificationError
from sqlalchemy import Engine

from services.access.queries import TokenRow, token_row
from services.access.scopes import Scope
from services.access.tokens import HASHER, split_token
from services.database.session import transaction
from services.errors import PermanentError

_REMEMBERED: Final = 1000
_CHECKS_AT_ONCE: Final = 2  # each takes a core: guesses must not take all of them


class TokenRefused(PermanentError):
    """No token, or none that is known: the request is nobody's."""

    reason = "token_refused"


class TokenExpired(TokenRefused):
    """The token is right, and its time is over."""

    reason = "token_expired"


class TokenRevoked(TokenRefused):
    """The token is right, and was taken back."""

    reason = "token_revoked"


class ScopeMissing(PermanentError):
    """The token is valid, and does not allow this."""

    reason = "scope_missing"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is: the lab, the id of the token, and what it allows."""

    lab: str
    token_id: str
    scopes: frozenset[Scope]

    @property
    def name(self) -> str:
        """What the audit calls it."""
        return f"token {self.token_id}"

    def require(self, scope: Scope) -> None:
        """Refuse what the token does not allow.

        Raises:
            ScopeMissing: it lacks `scope`.
        """
        if scope not in self.scopes:
            raise ScopeMissing(f"this token does not allow it: ask for one with the scope {scope}")


class TokenVerifier:
    """Tells whose a token is. Shared by the threads of a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[bytes, str] = OrderedDict()  # SHA-256 of the token: the hash that it fits
        self._lock = Lock()
        self._checks = BoundedSemaphore(_CHECKS_AT_ONCE)

    def verify(self, text: str) -> Caller:
        """Whose token `text` is.

        Raises:
            TokenRefused: nobody's; its kinds say that it was somebody's.
            DatabaseUnavailable: Postgres cannot be asked.
        """
        parts = split_token(text)
        if parts is None:
            raise TokenRefused("send a token of your lab as `Authorization: Bearer mbt_…`")
        token_id, secret = parts
        with transaction(self._engine) as session:
            row = token_row(session, token_id)
        if row is None or not self._fits(text, secret, row):
            raise TokenRefused("this token is not known: check that it was copied whole")
        if row.state == "revoked":
            raise TokenRevoked(f"token {token_id} was revoked: ask for another")
        if row.state == "expired":
            raise TokenExpired(f"token {token_id} expired at {row.expires_at:%Y-%m-%d %H:%M} UTC: ask for another")
        return Caller(row.lab, token_id, frozenset(map(Scope, row.scopes)))

    def _fits(self, text: str, secret: str, row: TokenRow) -> bool:
        shown = hashlib.sha256(text.encode()).digest()
        with self._lock:
            if self._known.get(shown) == row.secret_hash:
                self._known.move_to_end(shown)
                return True
        with self._checks:
            try:
                HASHER.verify(row.secret_hash, secret)
            except VerificationError:
                return False
        with self._lock:
            self._known[shown] = row.secret_hash
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return True
