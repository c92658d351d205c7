"""The interface as an application of its own, which `services.api.app` mounts below /v1."""

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from services.access.verifying import TokenVerifier
from services.api.v1 import batches, events, results
from services.api.v1.document import VERSION, document_of
from services.api.v1.limits import BodyLimit, Rates, Waiting
from services.api.v1.problems import add_handlers
from services.api.v1.rooms import Rooms
from services.database.session import Engine
from services.dispatch import Publisher
from services.presigned import connect_signer
from services.settings import Settings
from services.storage import connect_store


def create_v1(settings: Settings, engine: Engine, publisher: Publisher) -> FastAPI:
    """The application. Nothing is sent to any server yet.

    Raises:
        StoreRefused: an endpoint of the object store is malformed.
    """
    app = FastAPI(title="morphbatch", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
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
