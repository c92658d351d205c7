"""The promise behind the hints: lists `incoming/` and registers every manifest that no event announced."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from sqlalchemy import Engine

from services import metrics
from services.database.session import transaction
from services.errors import MorphbatchError, PermanentError
from services.intake.problems import Problem
from services.intake.queries import known_manifests
from services.intake.registration import Outcome, Registered, notice, register_batch
from services.intake.validation import BadBatchName, check_names
from services.keys import INCOMING, incoming_of, manifest_key, notice_key
from services.storage import ObjectStore, StoreUnavailable

logger = logging.getLogger(__name__)

SETTLED_AFTER: Final = timedelta(days=7)
"""A batch that ended longer ago is not checked again, or a year of nights would be checked every minute."""

_MESSAGE_CHARACTERS: Final = 500
_OUTAGES_IN_A_ROW: Final = 3


class SweepIncomplete(MorphbatchError):
    """Some batches could not be registered. `registered` holds those that could: publish them nevertheless."""

    reason = "sweep_incomplete"

    def __init__(self, registered: list[Registered], errors: dict[str, Exception]) -> None:
        self.registered = tuple(registered)
        self.errors = errors
        lines = "".join(f"\n  {key}: {str(error)[:_MESSAGE_CHARACTERS]}" for key, error in errors.items())
        super().__init__(f"{len(errors)} batch(es) could not be registered:{lines}")


def sweep_incoming(engine: Engine, store: ObjectStore) -> list[Registered]:
    """Register every manifest in the store whose content is not known yet; one bad batch or lab never stops another.

    Raises:
        SweepIncomplete: some batches or labs failed; the others are registered and stand in it.
        StoreUnavailable: the labs could not be listed.
    """
    known = _known_batches(engine)
    registered: list[Registered] = []
    errors: dict[str, Exception] = {}
    outages = 0
    for lab in store.list_folders(INCOMING):
        if not _can_be_asked_for(lab):
            _warn_once(f"a folder of uploads is called {lab!r}, which no request can name: remove its objects")
            continue
        try:
            batches = list(store.list_folders(incoming_of(lab)))
            outages = 0
        except Exception as error:  # noqa: BLE001 - logged; the other labs' nights go on
            _note(errors, incoming_of(lab), error)
            outages += isinstance(error, StoreUnavailable)
            if outages == _OUTAGES_IN_A_ROW:  # not this lab's listing: the store is down
                break
            continue
        for batch_id in batches:
            try:
                found = _take_in(engine, store, lab, batch_id, known.get((lab, batch_id), _Known()))
            except Exception as error:  # noqa: BLE001 - logged; the night's other batches go on
                _note(errors, manifest_key(lab, batch_id), error)
            else:
                registered += [] if found is None else [found]
    if errors:
        raise SweepIncomplete(registered, errors)
    metrics.SWEEP_SUCCESS.labels("uploads").set_to_current_time()
    return registered


def unusable_uploads(store: ObjectStore) -> list[str]:
    """The folders of uploads whose names cannot be used, as an operator reads them: their batches are not taken in.

    Raises:
        StoreUnavailable: they could not be listed.
    """
    found = []
    for lab in store.list_folders(INCOMING):
        if not _is_usable(lab, "a"):
            found.append(f"lab {lab!r}")
            continue
        batches = store.list_folders(incoming_of(lab))
        found += [f"lab {lab}, batch {batch!r}" for batch in batches if not _is_usable(lab, batch)]
    return found


def _is_usable(lab: str, batch_id: str) -> bool:
    try:
        check_names(lab, batch_id)
    except BadBatchName:
        return False
    return True


def _take_in(engine: Engine, store: ObjectStore, lab: str, batch_id: str, seen: "_Known") -> Registered | None:
    """Register a batch unless nothing of it is new; a lab is told once that its batch's name cannot be used."""
    if not _can_be_asked_for(batch_id):
        _warn_once(f"lab {lab} uploaded a folder called {batch_id!r}, which no request can name: remove its objects")
        return None
    try:
        check_names(lab, batch_id)
    except BadBatchName as error:
        if _tell_once(store, lab, batch_id, error):
            logger.warning("an upload is refused: %s", error)
        return None
    if seen.settled:
        return None
    found = store.stat(manifest_key(lab, batch_id))
    if found is None or found.etag in seen.etags:
        return None  # still uploading, or nothing new
    return register_batch(engine, store, lab, batch_id)


def _can_be_asked_for(name: str) -> bool:
    """Whether a key with this folder can be named in a request: clients and servers resolve or refuse the others."""
    return name not in {"", ".", ".."} and name.isprintable()


def _note(errors: dict[str, Exception], key: str, error: Exception) -> None:
    ours = isinstance(error, MorphbatchError)
    logger.warning("%s is not registered: %s", key, error, exc_info=None if ours else error)
    errors[key] = error


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


@dataclass(slots=True)
class _Known:
    etags: set[str] = field(default_factory=set)
    settled: bool = False


def _known_batches(engine: Engine) -> dict[tuple[str, str], _Known]:
    with transaction(engine) as session:
        manifests = known_manifests(session, datetime.now(UTC) - SETTLED_AFTER)
    known: dict[tuple[str, str], _Known] = {}
    for manifest in manifests:
        seen = known.setdefault((manifest.lab, manifest.batch_id), _Known())
        seen.etags.add(manifest.etag)
        seen.settled = manifest.settled
    return known


def _tell_once(store: ObjectStore, lab: str, batch_id: str, error: PermanentError) -> bool:
    """A batch that cannot be named has no row, so the notice itself says that the lab was told."""
    key = notice_key(lab, batch_id, Outcome.REJECTED)
    if store.stat(manifest_key(lab, batch_id)) is None or store.stat(key) is not None:
        return False
    problem = Problem("batch_id", error.reason, str(error))
    store.put(key, notice(lab, batch_id, Outcome.REJECTED, (problem,)), "application/json")
    return True
