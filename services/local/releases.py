"""The releases of the networks: published, recorded in the database, active, and laid out for Triton here.

The database says which release is active and what its document is. Its bytes are kept in the object store, and beside
the embedded stack in `HOME/triton/releases/<id>`; either can be lost and is restored from the other.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.database.models import AuditEvent, ModelRelease
from services.database.session import transaction
from services.errors import ConfigurationError
from services.storage import RELEASES, ObjectMissing, ObjectStore
from triton_models.release.forms import WITHOUT_FILES, form_served
from triton_models.release.repository import is_laid_out, lay_out_repository
from triton_models.release.schema import DOCUMENT, SHIPPED, Release, ReleaseBroken, read_release, verify_release

DEFAULT_FORM: Final = WITHOUT_FILES["embedded"]
_INSTALLING = "select pg_advisory_xact_lock(hashtext('morphbatch release install'))"


@dataclass(frozen=True, slots=True)
class Published:
    """A release on record: was it new to the database, and to the store."""

    release: Release
    recorded: bool
    published: bool


@dataclass(frozen=True, slots=True)
class Activated:
    """The active release: which was it before, and was Triton's folder laid out anew. `before` may be the same."""

    release: Release
    before: str | None
    laid_out: bool


class Releases:
    """The releases of one installation. `folder` is `HOME/triton`, `form` the one that Triton serves here."""

    def __init__(self, engine: Engine, store: ObjectStore, folder: Path, form: str = DEFAULT_FORM) -> None:
        self._engine = engine
        self._store = store
        self._kept = folder / "releases"
        self._form = form
        self.repository = folder / "repository"

    def publish(self, given: Path) -> Published:
        """Verify the release in the folder `given`, copy it to the object store, and record it; not active by that.

        Raises:
            ReleaseBroken: it is not what its document says, or another is on record or in the store under its id.
        """
        release = verify_release(given)
        self._refuse_another(release)
        self._keep(given, release)
        uploaded = self._upload(release)
        return Published(release, self._record(release), uploaded)

    def activate(self, release_id: str, *, by: str) -> Activated:
        """Make a published release the active one, and lay it out for Triton here; `by` goes into the audit.

        Everything that can fail comes before the switch in the database; what has to follow it can be done again.

        Raises:
            UnknownRelease: it is not on record.
            ReleaseBroken: it is not what its document says.
            ReleaseLost: its files are neither here nor in the store.
            FormMissing, FormBroken: it has not the form that is to be served here.
        """
        release = self.recorded(release_id)
        laid_out = self._prepare(release)
        return Activated(release, self._make_active(release, by), laid_out)

    def install(self) -> Activated:
        """See that the active release is whole here and in the store; the shipped one becomes it if there is none."""
        release = self._active()
        if release is None:
            return self.activate(self.publish(SHIPPED).release.id, by="release install")
        # Not made active again: another machine may be switching at this moment.
        return Activated(release, release.id, self._prepare(release))

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
        if not self._is_laid_out(release):
            raise ReleaseBroken(
                f"{self.repository} is not laid out from {release.id} ({self._form}): run `morphbatch release install`"
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

    def recorded(self, release_id: str) -> Release:
        """The release on record under this id.

        Raises:
            UnknownRelease: there is none; the message names those there are.
        """
        with transaction(self._engine) as session:
            document = session.scalar(select(ModelRelease.document).where(ModelRelease.id == release_id))
            if document is None:
                known = session.scalars(select(ModelRelease.id).order_by(ModelRelease.created_at.desc())).all()
                raise UnknownRelease(
                    f"no release {release_id} is published; there are: {', '.join(known) or 'none'}."
                    " `morphbatch release publish FOLDER` adds one"
                )
        return Release.model_validate_json(json.dumps(document))

    def files(self, release: Release) -> Path:
        """The folder with the files of a recorded release, brought from the store if they are not here.

        Raises:
            ReleaseLost: they are nowhere.
        """
        self._restore(release)
        return self._kept / release.id

    def _active(self) -> Release | None:
        with transaction(self._engine) as session:
            document = session.scalar(select(ModelRelease.document).where(ModelRelease.active))
        return None if document is None else Release.model_validate_json(json.dumps(document))

    def _refuse_another(self, release: Release) -> None:
        with transaction(self._engine) as session:
            known = session.scalar(select(ModelRelease.document).where(ModelRelease.id == release.id))
        if known is not None and known != release.document():
            raise ReleaseBroken(f"another release is recorded as {release.id}; a release never changes")

    def _record(self, release: Release) -> bool:
        """Insert the release unless it is there; whether it was inserted."""
        with transaction(self._engine) as session:
            inserted = session.scalar(
                insert(ModelRelease)
                .values(id=release.id, kind=release.kind, document=release.document())
                .on_conflict_do_nothing()
                .returning(ModelRelease.id)
            )
        self._refuse_another(release)
        return inserted is not None

    def _prepare(self, release: Release) -> bool:
        """Have the release here, in the store and in Triton's folder; whether that had to be laid out anew."""
        self._restore(release)
        self._upload(release)
        if self._is_laid_out(release):
            return False
        lay_out_repository(self._kept / release.id, self.repository, form=self._form)
        return True

    def _make_active(self, release: Release, by: str) -> str | None:
        """Switch in the database; the id of the release that was active before."""
        with transaction(self._engine) as session:
            session.execute(text(_INSTALLING))
            before = session.scalar(select(ModelRelease.id).where(ModelRelease.active))
            if before != release.id:
                session.execute(update(ModelRelease).where(ModelRelease.active).values(active=False))
                session.execute(update(ModelRelease).where(ModelRelease.id == release.id).values(active=True))
                detail = {"release": release.id, "before": before, "form": self._form, "by": by}
                session.add(AuditEvent(kind="release_activated", detail=detail))
        return before

    def _is_laid_out(self, release: Release) -> bool:
        form = form_served(self._kept / release.id, release, "embedded", self._form)
        return is_laid_out(release, self.repository, form=form)

    def _restore(self, release: Release) -> None:
        folder = self._kept / release.id
        try:
            whole = verify_release(folder) == release
        except ReleaseBroken:
            whole = False
        if whole:
            return
        shutil.rmtree(folder, ignore_errors=True)
        if self._fetch(release):
            return
        if read_release(SHIPPED) == release:
            self._keep(SHIPPED, release)
            return
        raise ReleaseLost(
            f"release {release.id} is on record, but its files are neither in {folder} nor whole in the object store"
            f" under {RELEASES}{release.id}/: put them back there, or activate another release"
        )

    def _keep(self, given: Path, release: Release) -> None:
        folder = self._kept / release.id
        if given.absolute() == folder.absolute():
            return
        partial = self._kept / f"{release.id}.new"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(given, partial)
        verify_release(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

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

    def _upload(self, release: Release) -> bool:
        """Put the release into the object store unless it is there; its document last, so that it means all is."""
        known = self._published_document(release.id)
        if known is not None:
            if known != release.document():
                raise ReleaseBroken(
                    f"{RELEASES}{release.id}/{DOCUMENT} in the object store is of another release; one never changes"
                )
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


class UnknownRelease(ConfigurationError):
    """No release of that id is on record."""

    reason = "unknown_release"


class ReleaseLost(ConfigurationError):
    """The files of a recorded release are nowhere."""

    reason = "release_lost"


def _brief(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in ("crop_px", "crop_um", "fusion", "metrics")}
