"""Is what Triton serves a release that the database knows?"""

from sqlalchemy import Engine, text

from services.database.session import transaction
from services.errors import ConfigurationError
from services.inference.networks import ServedRelease


def require_known_release(engine: Engine, served: ServedRelease) -> None:
    """Check that the served release is recorded with the same crops; its class order was checked on reading it.

    Raises:
        ConfigurationError: it is not recorded, or its crops differ from the record.
    """
    with transaction(engine) as session:
        known = session.execute(
            text("select document->>'crop_px', document->>'crop_um' from model_release where id = :id"),
            {"id": served.release_id},
        ).one_or_none()
    if known is None:
        raise ConfigurationError(
            f"Triton serves release {served.release_id}, which this database does not know: run"
            " `morphbatch release install`, or point Triton at the repository of a known release"
        )
    if (int(known[0]), float(known[1])) != (served.crop_px, served.crop_um):
        raise ConfigurationError(
            f"release {served.release_id} is recorded with crops of {known[0]} px and {known[1]} µm, Triton serves it"
            f" with {served.crop_px} px and {served.crop_um} µm: lay the repository out again"
        )
