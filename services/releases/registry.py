"""The releases of the networks on record: published, kept, and which of them is active.

The database says which release is active and what its document is. Its bytes are kept in the object store and in a
folder here; either can be lost and is restored from the other. What Triton serves of it is laid out by
`triton_models.layout.served_here`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Engine, text, update
from sqlalchemy.dialects.postgresql import insert

from services.atomic import whole_folder
from services.database.audit import AuditKind, record
from services.database.models import ModelRelease
from services.database.queries import active_release_id
from services.database.session import transaction
from services.documents import describe
from services.errors import ConfigurationError
from services.keys import release_file_key, release_prefix
from services.releases.queries import ReleaseRow, active_release, release_row, release_rows
from services.releases.schema import DOCUMENT, Release, ReleaseBroken, read_release, verify_release
from services.storage import ObjectMissing, ObjectStore

_INSTALLING: Final = "select pg_advisory_xact_lock(hashtext('morphbatch release install'))"


@dataclass(frozen=True, slots=True)
class Published:
    """A release on record: was it new to the database, and to the store."""

    release: Release
    recorded: bool
    published: bool


class Registry:
    """The releases of one installation: in its database, its object store, and `kept`, a folder a release.

    `shipped` is the folder of a release that comes with the software: its files need no other copy.
    """

    def __init__(self, engine: Engine, store: ObjectStore, kept: Path, shipped: Path) -> None:
        self._engine = engine
        self._store = store
        self._kept = kept
        self._shipped = shipped

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

    def publish_shipped(self) -> Published:
        """Publish the release that comes with the software."""
        return self.publish(self._shipped)

    def active(self) -> Release | None:
        """The active release; `None` before the first."""
        with transaction(self._engine) as session:
            row = active_release(session)
        return None if row is None else row.release

    def make_active(self, release: Release, detail: dict[str, Any]) -> str | None:
        """Switch to a recorded release; the id of the one that was active before. `detail` goes into the audit."""
        with transaction(self._engine) as session:
            session.execute(text(_INSTALLING))
            before = active_release_id(session)
            if before != release.id:
                session.execute(update(ModelRelease).where(ModelRelease.active).values(active=False))
                session.execute(update(ModelRelease).where(ModelRelease.id == release.id).values(active=True))
                record(session, AuditKind.RELEASE_ACTIVATED, release=release.id, before=before, **detail)
        return before

    def secure(self, release: Release) -> Path:
        """Have the files of a recorded release both here and in the store; the folder that holds them here.

        Raises:
            ReleaseLost: they are nowhere.
            ReleaseBroken: another release is in the store under this id.
        """
        folder = self.files(release)
        self._upload(release)
        return folder

    def check(self, release: Release) -> Path:
        """The folder of a recorded release, after its bytes here and its document in the store were checked.

        Raises:
            ReleaseBroken: something differs; the message says what.
        """
        folder = self._kept / release.id
        if verify_release(folder) != release:
            raise ReleaseBroken(f"{folder / DOCUMENT} is not the document in the database")
        if self._published_document(release.id) != release.document():
            raise ReleaseBroken(
                f"{release_file_key(release.id, DOCUMENT)} is missing from the object store, or differs"
            )
        return folder

    def rows(self) -> list[ReleaseRow]:
        """Every release on record, newest first."""
        with transaction(self._engine) as session:
            return release_rows(session)

    def recorded(self, release_id: str) -> Release:
        """The release on record under this id.

        Raises:
            UnknownRelease: there is none; the message names those there are.
        """
        return recorded_release(self._engine, release_id)

    def files(self, release: Release) -> Path:
        """The folder with the files of a recorded release, brought from the store if they are not here.

        Raises:
            ReleaseLost: they are nowhere.
        """
        self._restore(release)
        return self._kept / release.id

    def _refuse_another(self, release: Release) -> None:
        with transaction(self._engine) as session:
            known = release_row(session, release.id)
        if known is not None and known.document != release.document():
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
        if read_release(self._shipped) == release:
            self._keep(self._shipped, release)
            return
        raise ReleaseLost(
            f"release {release.id} is on record, but its files are neither in {folder} nor whole in the object store"
            f" under {release_prefix(release.id)}: put them back there, or activate another release"
        )

    def _keep(self, given: Path, release: Release) -> None:
        folder = self._kept / release.id
        if given.absolute() == folder.absolute():
            return
        with whole_folder(folder, replace=True) as draft:
            shutil.copytree(given, draft, dirs_exist_ok=True)
            verify_release(draft)

    def _fetch(self, release: Release) -> bool:
        """Bring the release from the object store; whether it is there, whole and the one on record."""
        try:
            with whole_folder(self._kept / release.id, replace=True) as draft:
                for name, file in release.files.items():
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    content = self._store.get(release_file_key(release.id, name), max_bytes=file.size)
                    (draft / name).write_bytes(content)
                release.write(draft)
                verify_release(draft)
        except (ObjectMissing, ReleaseBroken):
            return False
        return True

    def _upload(self, release: Release) -> bool:
        """Put the release into the object store unless it is there; its document last, so that it means all is."""
        known = self._published_document(release.id)
        if known is not None:
            if known != release.document():
                key = release_file_key(release.id, DOCUMENT)
                raise ReleaseBroken(f"{key} in the object store is of another release; a release never changes")
            return False
        folder = self._kept / release.id
        for name in (*release.files, DOCUMENT):
            self._store.put_file(release_file_key(release.id, name), folder / name)
        return True

    def _published_document(self, release_id: str) -> dict[str, Any] | None:
        try:
            document = self._store.get(release_file_key(release_id, DOCUMENT), max_bytes=16 * 2**20)
        except ObjectMissing:
            return None
        try:
            return Release.model_validate_json(document).document()
        except ValidationError as error:
            raise ReleaseBroken(
                f"{release_file_key(release_id, DOCUMENT)} in the object store: {describe(error)}"
            ) from error


def recorded_release(engine: Engine, release_id: str) -> Release:
    """The release on record under this id.

    Raises:
        UnknownRelease: there is none; the message names those there are.
    """
    with transaction(engine) as session:
        row = release_row(session, release_id)
        if row is None:
            known = ", ".join(known.release_id for known in release_rows(session))
            raise UnknownRelease(
                f"no release {release_id} is published; there are: {known or 'none'}."
                " `morphbatch release publish FOLDER` adds one"
            )
    return row.release


class UnknownRelease(ConfigurationError):
    """No release with this id is on record."""

    reason = "unknown_release"


class ReleaseLost(ConfigurationError):
    """The files of a recorded release are neither here nor in the object store."""

    reason = "release_lost"
