"""What an error of Postgres means for the work at hand: one table, from SQLSTATE to what happens.

Whatever tells of the server and not of the work is an outage: it is down, it has no room, it refuses or is busy. The
work waits and no attempt is counted. What is in no row of the table is a fault of the statement, and counts.
"""

from dataclasses import dataclass
from typing import Final

import psycopg2

from services.errors import ConfigurationError, OutageError


class DatabaseUnavailable(OutageError):
    """Postgres cannot be reached, went away in the middle of a transaction, or is not in order itself."""

    reason = "database_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    """Postgres answers and takes no writes."""

    reason = "database_read_only"


class DatabaseFull(DatabaseUnavailable):
    """Postgres has no room: on its disk, in its memory, or for another connection."""

    reason = "database_full"


class DatabaseBusy(DatabaseUnavailable):
    """Postgres gave the statement up for the sake of another, or on somebody's order."""

    reason = "database_busy"


class DatabaseOutdated(ConfigurationError):
    """The database lacks a table, view or column that this version of morphbatch works with."""

    reason = "database_outdated"


class DatabaseRefused(ConfigurationError):
    """The role of the database URL may not do what was asked."""

    reason = "database_refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of the work: it waits under `error`. `drops`: the connections at hand are of no use any more."""

    error: type[DatabaseUnavailable | DatabaseOutdated | DatabaseRefused]
    says: str
    drops: bool = True


LOST: Final = Fault(DatabaseUnavailable, "cannot be reached")
_MIGRATE: Final = "run `morphbatch migrate`, or name a role in MORPHBATCH_DATABASE_URL that may read it"
_CHECK: Final = "check the role in MORPHBATCH_DATABASE_URL (`morphbatch migrate`: MORPHBATCH_MIGRATION_URL)"

FAULTS: Final = {
    "08": Fault(DatabaseUnavailable, "lost the connection"),
    "25006": Fault(DatabaseReadOnly, "takes no writes: it is a standby, or an administrator has set it read-only"),
    "25P03": Fault(DatabaseBusy, "ended a transaction that was idle for too long"),
    "25P04": Fault(DatabaseBusy, "ended a transaction that took too long"),
    "28": Fault(DatabaseRefused, f"refuses the login; {_CHECK}"),
    "3D": Fault(DatabaseRefused, "has no such database; check MORPHBATCH_DATABASE_URL"),
    "3F": Fault(DatabaseOutdated, f"has no such schema; {_MIGRATE}", drops=False),
    "40": Fault(DatabaseBusy, "gave the transaction up for another one", drops=False),
    "42501": Fault(DatabaseRefused, f"refuses the statement; {_CHECK}", drops=False),
    "42703": Fault(DatabaseOutdated, f"has no such column; {_MIGRATE}", drops=False),
    "42883": Fault(DatabaseOutdated, f"has no such function; {_MIGRATE}", drops=False),
    "42P01": Fault(DatabaseOutdated, f"has no such table; {_MIGRATE}", drops=False),
    "53": Fault(DatabaseFull, "has no resources left"),
    "53100": Fault(DatabaseFull, "has no disk space left; make room on its disk"),
    "53200": Fault(DatabaseFull, "has no memory left"),
    "53300": Fault(DatabaseFull, "takes no more connections"),
    "55006": Fault(DatabaseBusy, "has the object in use", drops=False),
    "55P03": Fault(DatabaseBusy, "did not give a lock in time", drops=False),
    "57014": Fault(DatabaseBusy, "cancelled the statement: it took too long, or somebody ended it", drops=False),
    "57P": Fault(DatabaseUnavailable, "is shutting down or starting"),
    "58": Fault(DatabaseUnavailable, "meets errors of its operating system"),
    "72": Fault(DatabaseBusy, "could not keep the snapshot", drops=False),
    "F0": Fault(DatabaseUnavailable, "has an error in its configuration file"),
    "XX": Fault(DatabaseUnavailable, "is broken inside; see its log"),
}
"""By SQLSTATE, or by what it begins with: the longest key that fits counts. The classes are those of Postgres's
appendix A, https://www.postgresql.org/docs/current/errcodes-appendix.html."""


def fault_of(error: BaseException) -> Fault | None:
    """The row of the table for an error of the driver; `None` for one that the statement itself is at fault for."""
    sqlstate = getattr(error, "pgcode", None)
    if sqlstate is None:
        # What the driver calls an error of the operation, the interface or the database without saying which: a
        # connection refused or broken. With a fault of ours it says ProgrammingError, DataError and the like.
        vague = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        return LOST if vague or type(error) is psycopg2.DatabaseError else None
    if "error in .read() call" in str(error):  # COPY was cancelled by the driver: the file that it reads from failed
        return None
    fitting = [FAULTS[sqlstate[:length]] for length in (5, 3, 2) if sqlstate[:length] in FAULTS]
    return fitting[0] if fitting else None


def described(fault: Fault, error: BaseException) -> DatabaseUnavailable | DatabaseOutdated | DatabaseRefused:
    """The error of ours, in Postgres's own sentence, without the statement and the rows that it quotes."""
    diagnosis = getattr(error, "diag", None)
    said = (diagnosis.message_primary if diagnosis else None) or next(iter(str(error).strip().splitlines()), "")
    sqlstate = getattr(error, "pgcode", None)
    return fault.error(f"Postgres {fault.says}{f' ({sqlstate})' if sqlstate else ''}: {said or type(error).__name__}")
