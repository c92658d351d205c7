"""Which release a slide is analysed under: the one that is served, on record, and active."""

from sqlalchemy import Engine, text

from services.database.session import transaction
from services.errors import ConfigurationError
from services.releases.served import ServedRelease


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
            " `morphbatch release activate`, or point Triton at the repository of a known release"
        )
    require_same_crops(served, int(known[0]), float(known[1]))


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


_ACTIVE = "(select id from model_release where active)"

_REPLACED = text(
    f"""
    with replaced as (
        update analysis set state = 'quarantined', finished_at = now(), reason = 'release_replaced',
            detail = 'was queued when another release became active; the slide is analysed again under that one'
        where state = 'queued' and release_id <> {_ACTIVE}
            and exists (select from analysis other where other.slide_id = analysis.slide_id
                and other.release_id = {_ACTIVE})
        returning slide_id
    )
    update analysis set state = 'queued', attempts = 0, reason = null, detail = null,
        queued_at = now(), publish_at = now()
    from replaced where analysis.slide_id = replaced.slide_id and analysis.release_id = {_ACTIVE}
        and analysis.state not in ('queued', 'running')
    returning analysis.slide_id
    """
)

_MOVED = text(
    f"""
    update analysis set release_id = {_ACTIVE}, attempts = 0, reason = null, detail = null, publish_at = now()
    where state = 'queued' and release_id <> {_ACTIVE}
        and not exists (select from analysis other where other.slide_id = analysis.slide_id
            and other.release_id = {_ACTIVE})
    returning slide_id
    """
)


def follow_active_release(engine: Engine) -> int:
    """Move every queued slide of another release to the active one; returns how many. A running slide is left alone.

    A slide that had been analysed under the active release before is queued there again.
    """
    with transaction(engine) as session:
        moved = [*session.scalars(_REPLACED), *session.scalars(_MOVED)]
        if moved:
            session.execute(
                text(
                    "insert into audit_event (kind, batch_id, detail) select 'slides_moved_to_release', batch_id,"
                    f" jsonb_build_object('release', {_ACTIVE}, 'slides', jsonb_agg(slide_code order by slide_code))"
                    " from slide where id = any(:ids) group by batch_id"
                ),
                {"ids": moved},
            )
    return len(moved)
