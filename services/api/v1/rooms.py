"""What the routers work with, made once for a process, and how each of them gets it."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from services.access.verifying import TokenVerifier
from services.api.v1.limits import Rates, Waiting
from services.database.session import Engine
from services.dispatch import Publisher
from services.presigned import UrlSigner
from services.settings import Settings
from services.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Rooms:
    """Connections and limits of this process."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    signer: UrlSigner
    publisher: Publisher
    verifier: TokenVerifier
    rates: Rates
    waiting: Waiting


def _rooms(request: Request) -> Rooms:
    return cast(Rooms, request.app.state.rooms)


UsedRooms = Annotated[Rooms, Depends(_rooms)]
