"""The promise behind the hints: lists `incoming/` and registers every manifest that no event announced."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from services.database.session import transaction
from services.errors import MorphbatchError, PermanentError
from services.intake.problems import Problem
from services.intake.queries import known_manifests
from services.intake.registration import Outcome, Registered, notice, register_batch
from services.intake.validation import BadBatchName, check_names
from services.keys import INCOMING, incoming_of, manifest_key, notice_key
from services.storage import ObjectStore

logger = logging.getLogger(__name__)

SETTLED_AFTER: Final = timedelta(days=7)
"""A batch that was finished longer ago is not looked at again, or a year of nights would be asked for every minute."""

_MESSAGE_CHARACTERS: Final = 500


class SweepIncomplete(MorphbatchError):
    """Some batches could not be registered. `registered` holds those that could: publish them all the same."""

    reason = "sweep_incomplete"

    def __init__(self, registered: list[Registered], errors: dict[str, Exception]) -> None:
        self.registered = tuple(registered)
        self.errors = errors
        lines = "".join(f"\n  {key}: {str(error)[:_MESSAGE_CHARACTERS]}" for key, error in errors.items())
        super().__init__(f"{len(errors)} batch(es) could not be registered:{lines}")


def sweep_incoming(engine: Engine, store: ObjectStore) -> list[Registered]:
    """Register every manifest in the store whose content is not known yet; one bad batch never stops the others.

    Raises:
        SweepIncomplete: some batches failed; the others are registered and stand in it.
        StoreUnavailable: the listing itself failed.
    """
    known = _known_batches(engine)
    registered: list[Registered] = []
    errors: dict[str, Exception] = {}
    for lab, batch_id in _batches(store):
        key = manifest_key(lab, batch_id)
        seen = known.get((lab, batch_id), _Known())
        try:
            check_names(lab, batch_id)
            if seen.settled:
                continue
            found = store.stat(key)
            if found is None or found.etag in seen.etags:
                continue  # still uploading, or nothing new
            registered.append(register_batch(engine, store, lab, batch_id))
        except BadBatchName as error:
            if _tell_once(store, lab, batch_id, error):
                logger.warning("an upload is refused: %s", error)
        except Exception as error:  # whatever is wrong with one batch, the others of the night go on
            ours = isinstance(error, MorphbatchError)
            logger.warning("lab %s batch %s is not registered: %s", lab, batch_id, error, exc_info=not ours)
            errors[key] = error
    if errors:
        raise SweepIncomplete(registered, errors)
    return registered


def _batches(store: ObjectStore) -> Iterator[tuple[str, str]]:
    for lab in store.list_folders(INCOMING):
        for batch_id in store.list_folders(incoming_of(lab)):
            yield lab, batch_id


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
