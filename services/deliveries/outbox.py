"""Puts what is to be delivered of an issued report on record, in the transaction that closes its batch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.database.session import transaction
from services.deliveries.queries import active_targets, insert_deliveries
from services.deliveries.targets import DeliveryKind
from services.keys import REPORT_NAME, result_key
from services.storage import ObjectStore

MOST_BYTES: Final = 16 * 2**20
_ENDINGS: Final = {DeliveryKind.MLLP: ".hl7", DeliveryKind.FHIR: ".fhir.json"}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for one target; `sha256` of the file as it was issued, none where that is not what is sent."""

    target_id: int
    file: str
    sha256: str | None


def outgoing(
    engine: Engine, store: ObjectStore, batch_key: int, lab: str, batch_id: str, files: Iterable[str]
) -> list[Outgoing]:
    """What is to be delivered of a report with these `files`, which stand among the batch's results: in their order.

    Raises:
        OutageError: the database or the object store cannot be reached.
    """
    with transaction(engine) as session:
        targets = active_targets(session, batch_key)
    digests: dict[str, str] = {}
    found = []
    for target_id, kind in targets:
        if kind == DeliveryKind.WEBHOOK:
            found.append(Outgoing(target_id, REPORT_NAME, None))
            continue
        for file in (file for file in files if file.endswith(_ENDINGS[DeliveryKind(kind)])):
            if file not in digests:
                content = store.get(result_key(lab, batch_id, file), max_bytes=MOST_BYTES)
                digests[file] = hashlib.sha256(content).hexdigest()
            found.append(Outgoing(target_id, file, digests[file]))
    return found


def put_on_record(session: Session, batch_key: int, revision: int, messages: Iterable[Outgoing]) -> int:
    """Have these sent; those of the same revision that are on record are left as they are. Returns how many are new."""
    return insert_deliveries(
        session,
        [
            {
                "target_id": message.target_id,
                "batch_key": batch_key,
                "revision": revision,
                "file": message.file,
                "sha256": message.sha256,
            }
            for message in messages
        ],
    )
