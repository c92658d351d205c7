"""Which release a slide is analysed under: the one that is served, on record, and active."""

from sqlalchemy import Engine, func, update

from services.database.audit import AuditKind, record
from services.database.models import Analysis
from services.database.queries import active_release_id
from services.database.session import transaction
from services.database.states import SlideState
from services.errors import ConfigurationError
from services.releases.queries import release_row, slides_by_batch
from services.releases.served import ServedRelease


def require_known_release(engine: Engine, served: ServedRelease) -> None:
    """Check that the served release is recorded with the same crops; its class order was checked on reading it.

    Raises:
        ConfigurationError: it is not recorded, or its crops differ from the record.
    """
    with transaction(engine) as session:
        known = release_row(session, served.release_id)
    if known is None:
        raise ConfigurationError(
            f"Triton serves release {served.release_id}, which this database does not know: run"
            " `morphbatch release activate`, or point Triton at the repository of a known release"
        )
    require_same_crops(served, known.document["crop_px"], known.document["crop_um"])


def require_same_crops(served: ServedRelease, crop_px: int, crop_um: float) -> None:
    """Check that the release is served with the crops that it is recorded with.

    Raises:
        ConfigurationError: it is not; what the networks would see is not what they were trained on.
    """
    if (crop_px, crop_um) != (served.crop_px, served.crop_um):
        raise ConfigurationError(
            f"release {served.release_id} is recorded with crops of {crop_px} px and {crop_um} µm, Triton serves it"
            f" with {served.crop_px} px and {served.crop_um} µm: lay the repository out again"
        )


def follow_active_release(engine: Engine) -> int:
    """Move every queued slide of another release to the active one; returns how many. A running slide is left alone."""
    with transaction(engine) as session:
        active = active_release_id(session)
        if active is None:
            return 0
        moved = session.scalars(
            update(Analysis)
            .where(Analysis.state == SlideState.QUEUED, Analysis.release_id != active)
            .values(release_id=active, attempts=0, reason=None, detail=None, publish_at=func.now())
            .returning(Analysis.slide_key),
            execution_options={"synchronize_session": False},
        ).all()
        for batch_key, slides in slides_by_batch(session, moved).items():
            record(session, AuditKind.SLIDES_MOVED_TO_RELEASE, batch_key=batch_key, release=active, slides=slides)
    return len(moved)
