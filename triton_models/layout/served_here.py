"""The release that Triton serves here: the active one, laid out as a model repository in a compiled form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from services.releases.registry import Registry
from services.releases.schema import Release, ReleaseBroken
from services.storage import ObjectStore
from triton_models.forms.form import best_form, form_served
from triton_models.layout.repository import is_laid_out, lay_out_repository

SHIPPED: Final = Path(__file__).parent.parent / "shipped"
"""The demonstration release: what a new installation serves."""


@dataclass(frozen=True, slots=True)
class Activated:
    """The active release, the one before it (may be the same), and whether Triton's repository was rewritten."""

    release: Release
    before: str | None
    laid_out: bool


class ServedHere:
    """The releases of one installation and Triton's repository; `folder` is `HOME/triton`.

    `form` is what it serves of each; None: the best that a release carries for this machine's CPU (`best_form`).
    """

    def __init__(self, engine: Engine, store: ObjectStore, folder: Path, form: str | None = None) -> None:
        self.registry = Registry(engine, store, folder / "releases", SHIPPED)
        self.repository = folder / "repository"
        self._form = form

    def activate(self, release_id: str, *, by: str) -> Activated:
        """Make a published release the active one, and lay it out for Triton here; `by` goes into the audit.

        Everything that can fail comes before the switch in the database; what has to follow it can be done again.

        Raises:
            UnknownRelease: it is not on record.
            ReleaseBroken: it is not what its document says.
            ReleaseLost: its files are neither here nor in the store.
            FormMissing, FormBroken: it has not the form that is to be served here.
        """
        release = self.registry.recorded(release_id)
        form, laid_out = self._prepare(release)
        return Activated(release, self.registry.make_active(release, {"form": form, "by": by}), laid_out)

    def install(self) -> Activated:
        """Ensure that the active release is whole here and in the store; a first one is the shipped release."""
        release = self.registry.active()
        if release is None:
            return self.activate(self.registry.publish_shipped().release.id, by="release install")
        # Not made active again: another machine may be switching at this moment.
        return Activated(release, release.id, self._prepare(release)[1])

    def verify(self) -> Release:
        """The active release, after its bytes here, its document in the store and Triton's folder were checked.

        Raises:
            ReleaseBroken: something differs; the message says what to do.
        """
        release = self.registry.active()
        if release is None:
            raise ReleaseBroken("no release is active: run `morphbatch release install`")
        folder = self.registry.check(release)
        if not self._is_laid_out(release, folder):
            raise ReleaseBroken(
                f"{self.repository} is not laid out from {release.id} ({self._form_of(folder)}):"
                " run `morphbatch release install`"
            )
        return release

    def _prepare(self, release: Release) -> tuple[str, bool]:
        """Have the release here, in the store and in Triton's repository: in which form, and was that rewritten."""
        folder = self.registry.secure(release)
        form = self._form_of(folder)
        if self._is_laid_out(release, folder):
            return form, False
        lay_out_repository(folder, self.repository, form=form)
        return form, True

    def _is_laid_out(self, release: Release, folder: Path) -> bool:
        form = form_served(folder, release, "embedded", self._form_of(folder))
        return is_laid_out(release, self.repository, form=form)

    def _form_of(self, folder: Path) -> str:
        return self._form or best_form(folder)
