"""The interface as an application of its own, which `services.api.app` mounts below /v1.

`python -m services.api.v1.app > docs/openapi.json` writes its document, without asking anybody.
"""

import json
import sys

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from services.access.verifying import TokenVerifier
from services.api.v1 import batches, events, results
from services.api.v1.document import VERSION, document_of
from services.api.v1.limits import BodyLimit, Rates, Waiting
from services.api.v1.problems import add_handlers
from services.api.v1.rooms import Rooms
from services.database.session import Engine, make_engine
from services.dispatch import Publisher, connect_publisher
from services.presigned import connect_signer
from services.settings import Settings
from services.storage import connect_store


def create_v1(settings: Settings, engine: Engine, publisher: Publisher) -> FastAPI:
    """The application. Nothing is sent to any server yet.

    Raises:
        StoreRefused: an endpoint of the object store is malformed.
    """
    app = FastAPI(
        title="morphbatch",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.rooms = Rooms(
        settings=settings,
        engine=engine,
        store=connect_store(settings),
        signer=connect_signer(settings),
        publisher=publisher,
        verifier=TokenVerifier(engine),
        rates=Rates(settings.api_requests_per_second),
        waiting=Waiting(),
    )
    for part in (batches, events, results):
        app.include_router(part.router)

    @app.get("/openapi.json", include_in_schema=False)
    def document() -> Response:
        return JSONResponse(document_of(app))

    add_handlers(app)
    app.add_middleware(BodyLimit)
    return app


def published() -> str:
    """The document of the interface, as the file `docs/openapi.json`."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own keyword
    app = create_v1(settings, make_engine(settings.database_url), connect_publisher(settings.broker_url))
    return json.dumps(document_of(app), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(published())
