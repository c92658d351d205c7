"""What is asked of API tokens."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from services.database.models import ApiToken, Lab


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is kept: everything but its secret."""

    token_id: str
    lab_id: int
    lab: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    replaces: str | None
    now: datetime
    """Postgres' clock, by which `expires_at` was set."""

    @property
    def state(self) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.now < self.expires_at else "expired"


_ROW: Final = (
    ApiToken.id,
    Lab.id,
    Lab.code,
    ApiToken.name,
    ApiToken.scopes,
    ApiToken.secret_hash,
    ApiToken.created_at,
    ApiToken.created_by,
    ApiToken.expires_at,
    ApiToken.revoked_at,
    ApiToken.replaces,
    func.now(),
)


def token_row(session: Session, token_id: str, *, locked: bool = False) -> TokenRow | None:
    """The token of this id; `None` where there is none. `locked`: nobody else changes it before the commit."""
    asked = _tokens().where(ApiToken.id == token_id)
    found = session.execute(asked.with_for_update(of=ApiToken) if locked else asked).first()
    return None if found is None else _row(tuple(found))


def token_rows(session: Session, lab: str | None) -> list[TokenRow]:
    """The tokens of one lab or of all, by lab and then by age."""
    asked = _tokens().order_by(Lab.code, ApiToken.created_at, ApiToken.id)
    return [_row(tuple(row)) for row in session.execute(asked if lab is None else asked.where(Lab.code == lab))]


def lab_is_new(session: Session, lab: str) -> bool:
    """Put the lab on record; whether it was not there before."""
    new = upsert(Lab).values(code=lab).on_conflict_do_nothing(index_elements=[Lab.code]).returning(Lab.id)
    return session.scalar(new) is not None


def lab_id(session: Session, lab: str) -> int | None:
    """The number of the lab's row; `None` where it is not on record."""
    return session.scalar(select(Lab.id).where(Lab.code == lab))


def expire_within(session: Session, token_id: str, hours: float) -> None:
    """Have the token expire in so many hours, unless it does before."""
    end = func.least(ApiToken.expires_at, func.now() + func.make_interval(0, 0, 0, 0, 0, 0, hours * 3600))
    session.execute(update(ApiToken).where(ApiToken.id == token_id).values(expires_at=end))


def set_revoked(session: Session, token_id: str, by: str) -> None:
    """Mark the token as revoked from now on."""
    session.execute(update(ApiToken).where(ApiToken.id == token_id).values(revoked_at=func.now(), revoked_by=by))


def _tokens() -> "Select[*tuple[Any, ...]]":
    return select(*_ROW).join(Lab, Lab.id == ApiToken.lab_id)


def _row(columns: tuple[object, ...]) -> TokenRow:
    values = list(columns)
    values[4] = tuple(values[4])  # type: ignore[arg-type]  # a list, as the driver reads an array
    return TokenRow(*values)  # type: ignore[arg-type]
