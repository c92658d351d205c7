"""Every class of errors that Postgres can give while a slide's rows are written, raised by Postgres itself."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from services.analysis.leases import claim
from services.analysis.rows import CopySpool
from services.batches.due import Sweep
from services.database.faults import FAULTS, DatabaseReadOnly, DatabaseUnavailable
from services.database.session import transaction
from services.storage import ObjectStore
from tests.integration.analysis.slides import ConstantNetworks, Hints, encode, one, run, submit
from tests.integration.servers import Postgres
from tests.waiting import wait_until

# One SQLSTATE for each row of the table, and others of its class that mean the same.
NOT_THE_SLIDES = {
    "08": ("08000", "08006"), "25006": ("25006",), "25P03": ("25P03",), "25P04": ("25P04",), "28": ("28000", "28P01"),
    "3D": ("3D000",), "3F": ("3F000",), "40": ("40001", "40P01"), "42501": ("42501",), "42703": ("42703",),
    "42883": ("42883",), "42P01": ("42P01",), "53": ("53000", "53400"), "53100": ("53100",), "53200": ("53200",),
    "53300": ("53300",), "55006": ("55006",), "55P03": ("55P03",), "57014": ("57014",), "57P": ("57P01", "57P03"),
    "58": ("58000", "58030", "58P01"), "72": ("72000",), "F0": ("F0000",), "XX": ("XX000", "XX001"),
}  # fmt: skip
THE_SLIDES = {
    "22003": "NumericValueOutOfRange", "22P02": "InvalidTextRepresentation", "23505": "UniqueViolation",
    "23514": "CheckViolation", "42601": "SyntaxError", "42804": "DatatypeMismatch", "54000": "ProgramLimitExceeded",
    "P0001": "RaiseException",
}  # fmt: skip


@pytest.fixture
def slide(engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]) -> int:
    """The analysis of a slide that ends well, once Postgres lets it."""
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    return analysis


@contextmanager
def raising(postgres: Postgres, engine: Engine, sqlstate: str, table: str) -> Iterator[None]:
    """Whoever writes into `table` gets this error from Postgres."""
    with postgres.as_owner(engine) as session:
        session.execute(
            text(
                "create function fail() returns trigger language plpgsql as $$ begin"
                f" raise exception 'it is so' using errcode = '{sqlstate}'; end $$"
            )
        )
        session.execute(text(f"create trigger fail before insert on {table} for each row execute function fail()"))
    yield
    with postgres.as_owner(engine) as session:
        session.execute(text(f"drop trigger fail on {table}"))
        session.execute(text("drop function fail"))


def connections(engine: Engine) -> set[int]:
    """The server's processes of our connections to this database."""
    with transaction(engine) as session:
        return set(session.scalars(text("select pid from pg_stat_activity where datname = current_database()")))


def test_every_row_of_the_table_is_tried() -> None:
    assert NOT_THE_SLIDES.keys() == FAULTS.keys()


@pytest.mark.parametrize(("row", "sqlstate"), [(row, code) for row, codes in NOT_THE_SLIDES.items() for code in codes])
def test_what_is_not_the_slides_fault_waits_uncounted_and_goes_on(
    postgres: Postgres, engine: Engine, empty_bucket: ObjectStore, slide: int, row: str, sqlstate: str
) -> None:
    fault = FAULTS[row]
    with raising(postgres, engine, sqlstate, "cell"):  # written by COPY
        before = connections(engine)
        for _ in range(3):
            assert run(engine, empty_bucket, slide) is None
        found = one(engine, "select state, attempts, reason, detail from analysis")
        assert (found.state, found.attempts, found.reason) == ("queued", 0, fault.error.reason)
        assert found.detail == f"Postgres {fault.says} ({sqlstate}): it is so"
        assert connections(engine).isdisjoint(before) == fault.drops
    with raising(postgres, engine, sqlstate, "slide_class_count"):  # written by a statement
        assert run(engine, empty_bucket, slide) is None
    assert one(engine, "select state, attempts from analysis") == ("queued", 0)
    assert run(engine, empty_bucket, slide) == 1
    assert one(engine, "select state, attempts from analysis") == ("done", 1)


@pytest.mark.parametrize("sqlstate", THE_SLIDES)
def test_a_fault_of_our_statement_counts_and_ends_in_quarantine(
    postgres: Postgres, engine: Engine, empty_bucket: ObjectStore, slide: int, sqlstate: str
) -> None:
    with raising(postgres, engine, sqlstate, "cell"):
        assert run(engine, empty_bucket, slide) is None
        assert one(engine, "select state, attempts from analysis") == ("queued", 1)
        assert run(engine, empty_bucket, slide) == 1
    found = one(engine, "select state, attempts, reason from analysis")
    assert found == ("quarantined", 2, f"unexpected_{THE_SLIDES[sqlstate]}")


def test_a_file_that_fails_under_copy_is_not_taken_for_a_cancelled_statement(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> str:
        raise OSError("the disk is gone")

    with closing(CopySpool("lab", ("code",))) as spool:
        monkeypatch.setattr(spool._text, "read", fail)
        with pytest.raises(Exception, match="the disk is gone") as caught, transaction(engine) as session:
            spool.write(session)
    assert not isinstance(caught.value, DatabaseUnavailable)


@contextmanager
def read_only(postgres: Postgres, engine: Engine) -> Iterator[None]:
    """As after a failover: connections that were open are gone, new ones take no writes; then all is well again.

    Connections that are opened meanwhile stay read-only for as long as they live.
    """
    name = engine.url.database
    postgres.administer("alter database {} set default_transaction_read_only = on", name)
    postgres.administer(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    yield
    postgres.administer("alter database {} reset default_transaction_read_only", name)


def test_a_slide_that_ends_while_postgres_is_read_only_waits_and_goes_on_by_itself(
    postgres: Postgres, engine: Engine, empty_bucket: ObjectStore, slide: int, caplog: pytest.LogCaptureFixture
) -> None:
    at_work, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        at_work.set()
        assert may_end.wait(60)

    worker = threading.Thread(target=run, args=(engine, empty_bucket, slide, ConstantNetworks(hold)))
    worker.start()
    assert at_work.wait(60)
    with read_only(postgres, engine):
        may_end.set()
        wait_until(lambda: "waiting: Postgres takes no writes" in caplog.text, what="the outcome is not recorded")
        with pytest.raises(DatabaseReadOnly):
            Sweep(Hints(), 60, 60).run(engine)
        # Another slide's message comes meanwhile.
        second = threading.Thread(target=run, args=(engine, empty_bucket, slide))
        second.start()
    worker.join(60)
    second.join(60)
    assert not worker.is_alive()
    assert not second.is_alive()
    found = one(engine, "select state, attempts from analysis")
    assert found in [("queued", 0), ("done", 1)], "put back, or taken by the second message after that"
    run(engine, empty_bucket, slide)
    assert one(engine, "select state, attempts from analysis") == ("done", 1)


def test_the_first_sweep_after_an_outage_lets_leases_live_that_nobody_could_renew(
    postgres: Postgres, engine: Engine, empty_bucket: ObjectStore, slide: int
) -> None:
    lease = claim(engine, 60, slide)
    assert lease is not None
    sweep = Sweep(Hints(), 60, 60)
    with read_only(postgres, engine), pytest.raises(DatabaseReadOnly):
        sweep.run(engine)
    expire = "update analysis set lease_until = now() - interval '1 s' returning state"
    assert one(engine, expire) == ("running",)
    sweep.run(engine)
    assert one(engine, "select state, lease_until > now() from analysis") == ("running", True)
    assert one(engine, expire) == ("running",)
    sweep.run(engine)
    assert one(engine, "select state, reason from analysis") == ("queued", "lease_expired")
