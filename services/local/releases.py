"""Install a release of the networks: recorded and active in the database, published, and laid out for Triton here.

The database says which release is active and what its document is. Its bytes are kept in the object store, and beside
the embedded stack in `HOME/triton/releases/<id>`; either can be lost and is restored from the other.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.database.models import ModelRelease
from services.database.session import transaction
from services.errors import ConfigurationError
from services.storage import RELEASES, ObjectMissing, ObjectStore
from triton_models.release.repository import is_laid_out, lay_out_repository
from triton_models.release.schema import DOCUMENT, Release, ReleaseBroken, ReleaseKind, verify_release
from triton_models.release.untrained import build_untrained

_INSTALLING = "select pg_advisory_xact_lock(hashtext('morphbatch release install'))"


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did about the active release: was it new to the database, to the store, to Triton's folder."""

    release: Release
    recorded: bool
    published: bool
    laid_out: bool


class Releases:
    """The releases of one installation. `folder` is `HOME/triton`."""

    def __init__(self, engine: Engine, store: ObjectStore, folder: Path) -> None:
        self._engine = engine
        self._store = store
        self._kept = folder / "releases"
        self.repository = folder / "repository"

    def install(self, given: Path | None = None) -> Installed:
        """Make the release in the folder `given` active, or see that the active one is whole; untrained if none is.

        Raises:
            ReleaseBroken: a release is not what its document says, or differs from the record under the same id.
            ReleaseLost: the bytes of the active release are neither here nor in the store.
        """
        recorded = False
        if given is not None:
            release = self._keep(given)
            recorded = self._record(release)
        elif (active := self._active()) is not None:
            release = self._restore(active)
        else:
            release = self._grow_untrained()
            recorded = self._record(release)
        published = self._publish(release)
        laid_out = not is_laid_out(release, self.repository)
        if laid_out:
            lay_out_repository(self._kept / release.id, self.repository)
        return Installed(release, recorded, published, laid_out)

    def verify(self) -> Release:
        """The active release, after its bytes here, its document in the store and Triton's folder were checked.

        Raises:
            ReleaseBroken: something differs; the message says what to do.
        """
        release = self._active()
        if release is None:
            raise ReleaseBroken("no release is active: run `morphbatch release install`")
        if verify_release(self._kept / release.id) != release:
            raise ReleaseBroken(f"{self._kept / release.id / DOCUMENT} is not the document in the database")
        if self._published_document(release.id) != release.document():
            raise ReleaseBroken(f"{RELEASES}{release.id}/{DOCUMENT} is missing from the object store, or differs")
        if not is_laid_out(release, self.repository):
            raise ReleaseBroken(
                f"{self.repository} is not laid out from {release.id}: run `morphbatch release install`"
            )
        return release

    def rows(self) -> list[dict[str, Any]]:
        """Every release on record, newest first, as JSON values."""
        with transaction(self._engine) as session:
            return [
                {
                    "id": row.id,
                    "kind": row.kind,
                    "active": row.active,
                    "created_at": row.created_at,
                    **_brief(row.document),
                }
                for row in session.scalars(select(ModelRelease).order_by(ModelRelease.created_at.desc()))
            ]

    def _active(self) -> Release | None:
        with transaction(self._engine) as session:
            document = session.scalar(select(ModelRelease.document).where(ModelRelease.active))
        return None if document is None else Release.model_validate_json(json.dumps(document))

    def _record(self, release: Release) -> bool:
        """Insert the release unless it is there, and make it the active one; whether it was inserted."""
        with transaction(self._engine) as session:
            session.execute(text(_INSTALLING))
            inserted = session.scalar(
                insert(ModelRelease)
                .values(id=release.id, kind=release.kind, document=release.document())
                .on_conflict_do_nothing()
                .returning(ModelRelease.id)
            )
            known = session.scalars(select(ModelRelease.document).where(ModelRelease.id == release.id)).one()
            if known != release.document():
                raise ReleaseBroken(f"another release is recorded as {release.id}; a release never changes")
            session.execute(update(ModelRelease).where(ModelRelease.id != release.id).values(active=False))
            session.execute(update(ModelRelease).where(ModelRelease.id == release.id).values(active=True))
        return inserted is not None

    def _restore(self, release: Release) -> Release:
        folder = self._kept / release.id
        try:
            whole = verify_release(folder) == release
        except ReleaseBroken:
            whole = False
        if whole:
            return release
        shutil.rmtree(folder, ignore_errors=True)
        if self._fetch(release):
            return release
        if release.kind is ReleaseKind.UNTRAINED and self._grow_untrained() == release:
            return release
        raise ReleaseLost(
            f"release {release.id} is active, but its files are neither in {folder} nor whole in the object store"
            f" under {RELEASES}{release.id}/: put them back there, or install another release"
        )

    def _grow_untrained(self) -> Release:
        new = self._kept / "untrained.new"
        shutil.rmtree(new, ignore_errors=True)
        self._kept.mkdir(parents=True, exist_ok=True)
        release = build_untrained(new)
        folder = self._kept / release.id
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        return release

    def _keep(self, given: Path) -> Release:
        release = verify_release(given)
        folder = self._kept / release.id
        if given.absolute() != folder.absolute():
            partial = self._kept / f"{release.id}.new"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(given, partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        return verify_release(folder)

    def _fetch(self, release: Release) -> bool:
        """Bring the release from the object store; whether it is there, whole and the one on record."""
        partial = self._kept / f"{release.id}.new"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for name, file in release.files.items():
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._store.get(f"{RELEASES}{release.id}/{name}", max_bytes=file.size))
        except ObjectMissing:
            return False
        release.write(partial)
        try:
            verify_release(partial)
        except ReleaseBroken:
            return False
        partial.rename(self._kept / release.id)
        return True

    def _publish(self, release: Release) -> bool:
        """Put the release into the object store unless it is there; its document last, so that it means all is."""
        known = self._published_document(release.id)
        if known is not None:
            if known != release.document():
                raise ReleaseBroken(f"{RELEASES}{release.id}/{DOCUMENT} in the object store is of another release")
            return False
        folder = self._kept / release.id
        for name in (*release.files, DOCUMENT):
            self._store.put_file(f"{RELEASES}{release.id}/{name}", folder / name)
        return True

    def _published_document(self, release_id: str) -> dict[str, Any] | None:
        try:
            document = self._store.get(f"{RELEASES}{release_id}/{DOCUMENT}", max_bytes=16 * 2**20)
        except ObjectMissing:
            return None
        return Release.model_validate_json(document).document()


class ReleaseLost(ConfigurationError):
    """The files of the active release are nowhere."""

    reason = "release_lost"


def _brief(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in ("crop_px", "crop_um", "fusion", "metrics")}
