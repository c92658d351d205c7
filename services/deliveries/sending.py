"""Sends what waits, one message after another: each target gets its messages in the order in which they were made.

A delivery is claimed with a lease before it is sent, and its end is recorded under the lease's token. A worker that is
killed between the two leaves it waiting: once the lease has run out the same bytes are sent again, with the same
MSH-10, the same `Webhook-Id` and the same identifiers. So a message may come twice, and none is lost.
"""

import hashlib
import json
import logging
import random
import ssl
import time
import uuid
from typing import Final

from sqlalchemy import Engine, func, select

from services import metrics
from services.database.audit import AuditKind, record
from services.database.models import Delivery
from services.database.moves import move
from services.database.session import transaction
from services.database.states import DeliveryMove
from services.deliveries import http, mllp
from services.deliveries.answers import NotTaken, Refused
from services.deliveries.outbox import MOST_BYTES
from services.deliveries.queries import Claimed, claim_next, put_off
from services.deliveries.targets import DeliveryKind
from services.deliveries.tls import tls_context
from services.errors import ConfigurationError
from services.keys import report_key, result_key, revision_key
from services.storage import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)

LEASE_S: Final = 60
"""Longer than an attempt can take."""
PASS_S: Final = 20.0
FIRST_DELAY_S: Final = 10.0
LONGEST_DELAY_S: Final = 900.0
WEBHOOK_PATIENCE_S: Final = 3 * 86_400.0
"""A webhook that nobody takes for three days stops; results of specimens are sent until somebody takes them."""
_LOCK: Final = (0x6D6F7270, 1)  # of two numbers, so that it is none of a batch's


def send_due(engine: Engine, store: ObjectStore) -> int:
    """Send what is due, for about 20 s at most; how many messages were delivered. One process does it at a time.

    Raises:
        OutageError: the database or the object store cannot be reached; what was not recorded is sent again.
    """
    delivered = 0
    until = time.monotonic() + PASS_S
    with transaction(engine) as guard:
        if not guard.scalar(select(func.pg_try_advisory_xact_lock(*_LOCK))):
            return 0
        while time.monotonic() < until:
            with transaction(engine) as session:
                claimed = claim_next(session, uuid.uuid4().hex, LEASE_S)
            if claimed is None:
                break
            delivered += _deliver(engine, store, claimed)
    return delivered


def _deliver(engine: Engine, store: ObjectStore, claimed: Claimed) -> bool:
    mine = (Delivery.id == claimed.delivery_id, Delivery.lease_token == claimed.token)
    try:
        answer = _send(store, claimed)
    except Refused as error:
        _stop(engine, claimed, error.code, str(error))
        return False
    except (NotTaken, ConfigurationError) as error:
        reason = error.code if isinstance(error, NotTaken) else error.reason
        if claimed.kind == DeliveryKind.WEBHOOK and claimed.age_s > WEBHOOK_PATIENCE_S:
            _stop(engine, claimed, "gave_up", f"not taken for three days; at last {reason}: {error}")
            return False
        with transaction(engine) as session:
            put_off(session, claimed, delay_s(claimed.attempts), reason, str(error))
        metrics.DELIVERIES.labels(claimed.kind, "put_off").inc()
        log.warning("delivery %d to lab %s by %s: %s", claimed.delivery_id, claimed.lab, claimed.kind, error)
        return False
    with transaction(engine) as session:
        taken = move(session, DeliveryMove.ACCEPT, *mine, reason=None, answer=answer)
    metrics.DELIVERIES.labels(claimed.kind, "delivered").inc()
    return bool(taken)


def delay_s(attempts: int) -> float:
    """Until the next try, after so many: doubled each time up to a quarter of an hour, with jitter."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts - 1, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _stop(engine: Engine, claimed: Claimed, reason: str, answer: str) -> None:
    with transaction(engine) as session:
        stopped = move(
            session,
            DeliveryMove.STOP,
            *(Delivery.id == claimed.delivery_id, Delivery.lease_token == claimed.token),
            reason=reason,
            answer=answer,
        )
        for delivery in stopped:
            record(
                session,
                AuditKind.DELIVERY_STOPPED,
                batch_key=delivery.batch_key,
                **{"delivery": delivery.id, "lab": claimed.lab, "to": claimed.kind, "file": delivery.file},
                **{"revision": delivery.revision, "reason": reason},
            )
    metrics.DELIVERIES.labels(claimed.kind, "stopped").inc()
    log.error("delivery %d to lab %s by %s is stopped: %s", claimed.delivery_id, claimed.lab, claimed.kind, answer)


def _send(store: ObjectStore, claimed: Claimed) -> str:
    """What the target said, once it has taken the message.

    Raises:
        NotTaken, Refused: it has not, for now or for good.
        UnusableCertificate: the operator's files cannot be read here.
        OutageError: the object store cannot be reached.
    """
    match DeliveryKind(claimed.kind):
        case DeliveryKind.WEBHOOK:
            return http.post_webhook(
                claimed.address, _tls(claimed), claimed.secret or "", f"delivery-{claimed.delivery_id}", event(claimed)
            )
        case DeliveryKind.MLLP:
            return mllp.send(claimed.address, _tls(claimed), _content(store, claimed))
        case DeliveryKind.FHIR:
            return http.post_bundle(claimed.address, _tls(claimed), claimed.secret, _content(store, claimed))


def _tls(claimed: Claimed) -> ssl.SSLContext:
    return tls_context(claimed.ca_file, claimed.certificate_file, claimed.key_file)


def event(claimed: Claimed) -> bytes:
    """The body of a webhook: which report is issued, and where it lies. No result is in it."""
    said = {
        "type": "report.issued",
        "timestamp": claimed.created_at.isoformat(),
        "data": {
            "lab": claimed.lab,
            "batch_id": claimed.batch_id,
            "revision": claimed.revision,
            "report": report_key(claimed.lab, claimed.batch_id),
        },
    }
    return json.dumps(said, separators=(",", ":")).encode()


def _content(store: ObjectStore, claimed: Claimed) -> bytes:
    """The bytes of the file as it was issued: among the results, or in the revision that they have become since."""
    batch = claimed.lab, claimed.batch_id
    for key in (result_key(*batch, claimed.file), revision_key(*batch, claimed.revision, claimed.file)):
        try:
            content = store.get(key, max_bytes=MOST_BYTES)
        except ObjectMissing:
            continue
        if hashlib.sha256(content).hexdigest() == claimed.sha256:
            return content
    raise Refused("content_missing", f"{claimed.file} of revision {claimed.revision} is no longer in the object store")
