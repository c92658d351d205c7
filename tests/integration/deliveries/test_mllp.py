"""HL7 to a listener that answers late, with errors, garbage or nothing: none is lost, and none overtakes another."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine, text

from services.batches.closing import close_batch
from services.database.session import make_engine, transaction
from services.deliveries import mllp, sending
from services.deliveries.by_hand import NotStopped, deliveries, drop, resend
from services.deliveries.targets import DeliveryKind, remove_target, set_target
from tests.integration.deliveries.listeners import Listener, acknowledged, late, mllp_listener
from tests.integration.reporting.reporting_night import Night
from tests.integration.servers import Postgres

AA = acknowledged("AA")


def closed(night: Night, listener: Listener, ca_file: Path, **files: Path) -> Night:
    """The batch is closed while its lab has this target."""
    set_target(night.engine, "berlin", DeliveryKind.MLLP, listener.address, by="anna", ca_file=ca_file, **files)
    close_batch(night.engine, night.store, night.batch_key)
    return night


def due_now(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("update delivery set next_try_at = now(), lease_until = null"))


def issued_again(postgres: Postgres, night: Night) -> None:
    """Another revision, of the same figures."""
    with postgres.as_owner(night.engine) as session:
        session.execute(text("update slide set order_number = 'R-2'"))
        session.execute(text("update batch set state = 'analysing'"))
    close_batch(night.engine, night.store, night.batch_key)


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    with transaction(engine) as session:
        found = session.execute(text("select file, state, attempts, reason from delivery order by id"))
        return [tuple(row) for row in found]


def test_each_specimen_is_sent_once_and_acknowledged(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with mllp_listener(ca, AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 2
        assert sending.send_due(finished.engine, finished.store) == 0
    assert rows(finished.engine) == [
        ("specimens/S-01.hl7", "delivered", 1, None),
        ("specimens/S-02.hl7", "delivered", 1, None),
    ]
    sent = [finished.get(f"specimens/S-0{n}.hl7").decode() for n in (1, 2)]
    assert listener.messages == sent


GARBAGE: dict[str, tuple[Callable[[str], bytes | None], str]] = {
    "drops the connection": (lambda _: None, "no_answer"),
    "says nothing of HL7": (lambda _: b"HTTP/1.1 200 OK\r\n\r\n\x1c\r", "unreadable_answer"),
    "half an answer": (lambda text: AA(text)[:40], "no_answer"),  # type: ignore[index]
    "acknowledges another": (
        lambda _: b"\x0bMSH|^~\\&|L|b|M|b|2||ACK|1|P|2.5.1\rMSA|AA|OTHER\r\x1c\r",
        "unreadable_answer",
    ),
    "an unknown code": (acknowledged("OK"), "unreadable_answer"),
    "without end": (lambda _: b"\x0b" + b"x" * 200_000, "unreadable_answer"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_after_anything_but_an_acknowledgement_the_same_is_sent_again(
    what: str, finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    answer, reason = GARBAGE[what]
    with mllp_listener(ca, answer, AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 0
        # The second specimen waits behind the first: it must not overtake it.
        assert rows(finished.engine) == [
            ("specimens/S-01.hl7", "waiting", 1, reason),
            ("specimens/S-02.hl7", "waiting", 0, None),
        ]
        assert sending.send_due(finished.engine, finished.store) == 0
        due_now(finished.engine)
        assert sending.send_due(finished.engine, finished.store) == 2
    first, again, second = listener.control_ids
    assert first == again != second
    assert listener.messages[0] == listener.messages[1]


def test_an_answer_that_comes_too_late_is_none(
    finished: Night, ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_S", 0.2)
    monkeypatch.setattr(mllp, "CONNECT_S", 0.8)
    with mllp_listener(ca, late(1.5, AA), AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 0
        assert rows(finished.engine)[0] == ("specimens/S-01.hl7", "waiting", 1, "no_answer")
        due_now(finished.engine)
        monkeypatch.setattr(mllp, "ANSWER_S", 15)
        assert sending.send_due(finished.engine, finished.store) == 2
    assert listener.control_ids[0] == listener.control_ids[1]


@pytest.mark.parametrize(("code", "reason"), [("AE", "hl7_ae"), ("AR", "hl7_ar")])
def test_an_error_stops_that_message_and_the_next_goes_on(
    code: str, reason: str, finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    with mllp_listener(ca, acknowledged(code, "no such order"), AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 1
        assert [row[1:] for row in rows(finished.engine)] == [("stopped", 1, reason), ("delivered", 1, None)]
        [stopped] = deliveries(finished.engine)
        assert stopped.answer == f"{code} no such order"
        assert (stopped.batch_id, stopped.file, stopped.state) == ("night-1", "specimens/S-01.hl7", "stopped")
        assert resend(finished.engine, [], by="anna") == [stopped.delivery_id]
        assert sending.send_due(finished.engine, finished.store) == 1
    assert listener.control_ids[0] == listener.control_ids[2]
    with transaction(finished.engine) as session:
        kinds = session.execute(text("select kind from audit_event where kind like 'deliver%' order by id")).scalars()
        assert kinds.all() == ["delivery_target_set", "delivery_stopped", "deliveries_resent"]


def test_what_is_given_up_is_never_sent(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with mllp_listener(ca, acknowledged("AR"), AA) as listener:
        closed(finished, listener, ca_file)
        sending.send_due(finished.engine, finished.store)
        [stopped] = deliveries(finished.engine)
        drop(finished.engine, [stopped.delivery_id], by="anna", why="entered by hand")
        assert deliveries(finished.engine) == []
        with pytest.raises(NotStopped, match="not stopped"):
            resend(finished.engine, [stopped.delivery_id], by="anna")
        with pytest.raises(NotStopped, match="not stopped"):
            drop(finished.engine, [stopped.delivery_id], by="anna", why="again")
        assert sending.send_due(finished.engine, finished.store) == 0
    assert len(listener.messages) == 2


def _send_and_die(url: str, store: Any) -> None:
    """A worker that is killed once the listener has the message, before it has read the acknowledgement."""

    def read(*_: object) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    mllp._read = read
    sending.send_due(make_engine(url), store)


def test_a_worker_killed_before_the_acknowledgement_loses_nothing(
    finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    with mllp_listener(ca, AA) as listener:
        closed(finished, listener, ca_file)
        url = finished.engine.url.render_as_string(hide_password=False)
        worker = multiprocessing.get_context("fork").Process(target=_send_and_die, args=(url, finished.store))
        worker.start()
        worker.join(30)
        assert worker.exitcode == -signal.SIGKILL
        assert rows(finished.engine)[0] == ("specimens/S-01.hl7", "waiting", 1, None)
        assert sending.send_due(finished.engine, finished.store) == 0  # its lease has not run out
        with transaction(finished.engine) as session:
            session.execute(text("update delivery set lease_until = now() where lease_token is not null"))
        assert sending.send_due(finished.engine, finished.store) == 2
    first, again, second = listener.control_ids
    assert first == again != second


def test_an_attempt_that_lost_its_lease_changes_nothing(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    def other_worker(text_: str) -> bytes | None:
        with transaction(finished.engine) as session:
            session.execute(text("update delivery set lease_token = 'another' where lease_token is not null"))
        return AA(text_)

    with mllp_listener(ca, other_worker, AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 0
        assert rows(finished.engine)[0] == ("specimens/S-01.hl7", "waiting", 1, None)
        assert len(listener.messages) == 1


def test_a_listener_with_another_certificate_gets_nothing(
    finished: Night, tmp_path: Path, ca: trustme.CA, ca_file: Path
) -> None:
    with mllp_listener(trustme.CA(), AA) as listener:
        closed(finished, listener, ca_file)
        assert sending.send_due(finished.engine, finished.store) == 0
        assert rows(finished.engine)[0] == ("specimens/S-01.hl7", "waiting", 1, "tls_failed")
    assert listener.messages == []


def test_a_listener_may_ask_who_is_there(finished: Night, tmp_path: Path, ca: trustme.CA, ca_file: Path) -> None:
    ours = ca.issue_cert("morphbatch.example")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    with mllp_listener(ca, AA, client_ca=ca) as listener:
        files = {"certificate_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
        closed(finished, listener, ca_file, **files)
        assert sending.send_due(finished.engine, finished.store) == 2
        assert len(listener.messages) == 2
        (tmp_path / "cert.pem").unlink()
        with transaction(finished.engine) as session:
            session.execute(text("update delivery set state = 'waiting', next_try_at = now()"))
        assert sending.send_due(finished.engine, finished.store) == 0
        assert rows(finished.engine)[0][3] == "unusable_certificate"


def test_a_later_revision_comes_after_and_the_one_before_is_sent_as_it_was(
    postgres: Postgres, finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    with mllp_listener(ca, lambda _: None, AA) as listener:
        closed(finished, listener, ca_file)
        sending.send_due(finished.engine, finished.store)
        first = finished.get("specimens/S-01.hl7").decode()
        issued_again(postgres, finished)
        due_now(finished.engine)
        assert sending.send_due(finished.engine, finished.store) == 4
    assert listener.messages[1] == first
    assert listener.messages[3] == finished.get("specimens/S-01.hl7").decode()
    assert len(set(listener.control_ids)) == 4


def test_an_old_result_is_not_sent_after_the_one_that_replaced_it(
    postgres: Postgres, finished: Night, ca: trustme.CA, ca_file: Path
) -> None:
    with mllp_listener(ca, acknowledged("AE"), AA) as listener:
        closed(finished, listener, ca_file)
        sending.send_due(finished.engine, finished.store)
        [stopped] = deliveries(finished.engine)
        issued_again(postgres, finished)
        sending.send_due(finished.engine, finished.store)
        with pytest.raises(NotStopped, match="later revision"):
            resend(finished.engine, [stopped.delivery_id], by="anna")
        assert resend(finished.engine, [], by="anna") == []
        assert len(listener.messages) == 4


def test_a_target_that_is_removed_gets_nothing_new(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with mllp_listener(ca, AA) as listener:
        set_target(finished.engine, "berlin", DeliveryKind.MLLP, listener.address, by="anna", ca_file=ca_file)
        remove_target(finished.engine, "berlin", DeliveryKind.MLLP, listener.address, by="anna")
        close_batch(finished.engine, finished.store, finished.batch_key)
        assert sending.send_due(finished.engine, finished.store) == 0
    assert rows(finished.engine) == []


def test_a_closing_that_comes_twice_queues_nothing_twice(finished: Night, ca: trustme.CA, ca_file: Path) -> None:
    with mllp_listener(ca, AA) as listener:
        closed(finished, listener, ca_file)
        with transaction(finished.engine) as session:
            session.execute(text("update batch set state = 'analysing'"))
        close_batch(finished.engine, finished.store, finished.batch_key)
        assert sending.send_due(finished.engine, finished.store) == 2
    assert len(listener.messages) == 2
