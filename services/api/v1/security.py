"""Who asks: the token of a request, and the scope that an endpoint wants."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.access.scopes import Scope
from services.access.verifying import Caller, TokenRefused
from services.api.v1.rooms import UsedRooms

_bearer = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token of your lab, as `morphbatch lab token` prints it."
)


def _caller(
    request: Request, rooms: UsedRooms, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    text = "" if shown is None else shown.credentials
    request.state.token = text  # whoever waits for a change asks again whether it holds
    try:
        caller = rooms.verifier.verify(text)
    except TokenRefused:
        # Whoever guesses is slowed down by where the guesses come from; each may cost the check of a hash.
        rooms.rates.take(f"refused {request.client.host if request.client else ''}")
        raise
    rooms.rates.take(caller.token_id)
    return caller


def _needing(scope: Scope) -> Callable[[Caller], Caller]:
    def needing(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return needing


Uploader = Annotated[Caller, Depends(_needing(Scope.UPLOAD))]
Reader = Annotated[Caller, Depends(_needing(Scope.READ))]
Administrator = Annotated[Caller, Depends(_needing(Scope.ADMINISTER))]
