"""What production asks of every secret: that it is set, and that it is not one that everybody knows."""

from collections.abc import Callable, Mapping, Set
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

DEVELOPMENT_SECRET: Final = "morphbatch-development"  # noqa: S105 - refused below
"""The default where there is one, so that a machine of one's own works at once."""

# Those of the servers' own documentation and of the examples that people copy.
_KNOWN: Final = frozenset(
    f"{DEVELOPMENT_SECRET} admin changeit changeme change-me default foobared guest minio minio123 minioadmin"
    " morphbatch password postgres redis root secret test token valkey".split()
)
# A key's name is no secret, and the embedded stack calls its own like this.
_KNOWN_NAMES: Final = _KNOWN - {"morphbatch"}

_POSTGRES: Final = "postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DATABASE"
_FIXES: Final = {
    "database_url": f"give the service's role a password of its own, and write {_POSTGRES}",
    "migration_url": f"give the owner's role a password of its own, and write {_POSTGRES}",
    "analyst_url": f"give the analyst's role a password of its own, and write {_POSTGRES}",
    "broker_url": "give Redis a password of its own, and write redis://:PASSWORD@HOST:PORT/0",
    "s3_access_key": "make the service a key of its own in the object store, and name it here",
    "s3_secret_key": "set the secret of the service's own key in the object store",
    "webhook_token": "make up a token (such as `openssl rand -hex 24`), and give it to the object store's webhook too",
}

SECRETS: Final = tuple(_FIXES)
"""The settings that are secrets, or URLs with one in them."""


def unsafe_secrets(values: Mapping[str, str | None], given: Set[str], name_of: Callable[[str], str]) -> list[str]:
    """What is wrong with the secrets, each with what to do about it; a secret itself is never repeated.

    Args:
        values: the settings in `SECRETS`; None where one may be absent, and is.
        given: the names of those that are not left to their defaults.
        name_of: what an operator knows a setting by.
    """
    return [
        f"{name_of(name)} {fault}: {_FIXES[name]}"
        for name, value in values.items()
        if value is not None and (fault := _fault(name, value, is_given=name in given))
    ]


def _fault(name: str, value: str, *, is_given: bool) -> str | None:
    if not is_given:
        return "is not set"
    if not value.strip():
        return "is empty"
    if not name.endswith("_url"):
        known = _KNOWN_NAMES if name == "s3_access_key" else _KNOWN
        return "is one that everybody knows" if value.strip().lower() in known else None
    try:
        user, password = _login(value)
    except ValueError:
        return "is not a URL"
    if not password.strip():
        return "has no password"
    if password.strip().lower() in _KNOWN or password == user:
        return "has a password that everybody knows"
    return None


def _login(url: str) -> tuple[str, str]:
    """User and password of a URL, which may stand in its query too; empty where there is none."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    user = unquote(parts.username or "") or asked.get("user", asked.get("username", [""]))[0]
    return user, unquote(parts.password or "") or asked.get("password", [""])[0]
