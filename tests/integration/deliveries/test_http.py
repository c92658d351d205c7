"""Webhooks and FHIR transactions to a server over TLS."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from fhir.resources.R4B.bundle import Bundle
from sqlalchemy import Engine, text

from services.batches.closing import close_batch
from services.database.session import transaction
from services.deliveries import sending
from services.deliveries.by_hand import deliveries
from services.deliveries.targets import BadTarget, DeliveryKind, remove_target, set_target, targets
from tests.integration.deliveries.listeners import Listener, http_listener
from tests.integration.reporting.reporting_night import Night


def closed(night: Night, kind: DeliveryKind, listener: Listener, ca_file: Path, token: str | None = None) -> str | None:
    url = f"https://{listener.address}/in"
    secret = set_target(night.engine, "berlin", kind, url, by="anna", ca_file=ca_file, token=token)
    close_batch(night.engine, night.store, night.batch_key)
    return secret


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    with transaction(engine) as session:
        return [tuple(row) for row in session.execute(text("select file, state, reason from delivery order by id"))]


def due_now(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("update delivery set next_try_at = now()"))


def test_a_webhook_tells_of_the_report_and_is_signed(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with http_listener(ca, (204, b"")) as listener:
        secret = closed(finished, DeliveryKind.WEBHOOK, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 1
    [body], [headers] = listener.messages, listener.headers
    assert json.loads(body)["type"] == "report.issued"
    assert json.loads(body)["data"] == {
        **{"lab": "berlin", "batch_id": "night-1", "revision": 1},
        "report": "results/berlin/night-1/report.json",
    }
    assert secret is not None
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['Webhook-Id']}.{headers['Webhook-Timestamp']}.{body}".encode()
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["Webhook-Signature"] == f"v1,{expected}"


def test_a_webhook_that_is_not_taken_is_sent_again_for_three_days(
    finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    with http_listener(ca, (500, {"error": "down"}), (301, b""), (503, b"")) as listener:
        closed(finished, DeliveryKind.WEBHOOK, listener, ca_file)
        for reason in ("http_500", "http_301"):  # a redirect is not followed
            assert sending.send_due(finished.engine, finished.store) == 0
            assert rows(finished.engine) == [("report.json", "waiting", reason)]
            due_now(finished.engine)
        with transaction(finished.engine) as session:
            session.execute(text("update delivery set created_at = now() - interval '73 hours'"))
        assert sending.send_due(finished.engine, finished.store) == 0
    assert rows(finished.engine) == [("report.json", "stopped", "gave_up")]
    [stopped] = deliveries(finished.engine)
    assert "http_503" in (stopped.answer or "")
    assert len(listener.messages) == 3
    assert len({headers["Webhook-Id"] for headers in listener.headers}) == 1


def test_tries_come_later_and_later_up_to_a_quarter_of_an_hour() -> None:
    for attempts, most in ((1, 10), (2, 20), (5, 160), (8, 900), (10_000, 900)):
        assert most / 2 <= sending.delay_s(attempts) <= most


def transaction_response(body: str) -> dict[str, Any]:
    """What a server answers that takes a Bundle only if it is right."""
    bundle = Bundle.model_validate_json(body)
    assert bundle.type == "transaction"
    return {
        "resourceType": "Bundle",
        "type": "transaction-response",
        "entry": [{"response": {"status": "201 Created"}} for _ in bundle.entry],
    }


def test_a_fhir_server_gets_a_transaction_of_each_specimen(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with http_listener(ca, (200, transaction_response)) as listener:
        closed(finished, DeliveryKind.FHIR, listener, ca_file, token="a-token")
        assert sending.send_due(finished.engine, finished.store) == 2
    assert [body.encode() for body in listener.messages] == [
        finished.get(f"specimens/S-0{n}.fhir.json") for n in (1, 2)
    ]
    assert listener.headers[0]["Content-Type"] == "application/fhir+json"
    assert listener.headers[0]["Authorization"] == "Bearer a-token"


def test_a_bundle_that_is_refused_stops_with_what_the_server_said(
    finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "diagnostics": "no such\npatient"}]}
    with http_listener(ca, (422, outcome), (503, b"busy"), (200, b"<html>"), (200, transaction_response)) as listener:
        closed(finished, DeliveryKind.FHIR, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 0
        assert [row[1:] for row in rows(finished.engine)] == [("stopped", "http_422"), ("waiting", "http_503")]
        assert deliveries(finished.engine)[0].answer == "HTTP 422: no such patient"
        due_now(finished.engine)
        assert sending.send_due(finished.engine, finished.store) == 0
        assert rows(finished.engine)[1][2] == "unreadable_answer"
        due_now(finished.engine)
        assert sending.send_due(finished.engine, finished.store) == 1


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("webhook", "http://lims.example.org/in"),
        ("webhook", "ftp://lims.example.org/in"),
        ("webhook", "https://user:password@lims.example.org/in"),
        ("webhook", "lims.example.org"),
        ("fhir", "http://10.0.0.1/fhir"),
        ("fhir", "https://[::1"),
        ("mllp", "lims.example.org"),
        ("mllp", "lims.example.org:70000"),
        ("mllp", "https://lims.example.org:2575"),
    ],
)
def test_an_address_that_carries_results_in_the_clear_or_is_none_is_refused(
    kind: str, address: str, engine: Engine
) -> None:
    with pytest.raises(BadTarget, match="give "):
        set_target(engine, "berlin", DeliveryKind(kind), address, by="anna")
    assert targets(engine) == []


def test_a_target_set_again_has_another_secret_and_is_there_once(engine: Engine) -> None:
    url = "http://127.0.0.1:9/in"
    first, second = (set_target(engine, "north", DeliveryKind.WEBHOOK, url, by="anna") for _ in range(2))
    assert first != second
    remove_target(engine, "north", DeliveryKind.WEBHOOK, url, by="anna")
    assert [(row.lab, row.kind, row.address, row.active) for row in targets(engine)] == [
        ("north", "webhook", url, False)
    ]
    with pytest.raises(BadTarget, match="has no webhook target"):
        remove_target(engine, "north", DeliveryKind.WEBHOOK, url, by="anna")
