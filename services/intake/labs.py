"""The labs that are on record, and the time zone by whose clock the days, nights and months of each begin."""

from sqlalchemy import Engine

from services.database.audit import AuditKind, record
from services.database.session import transaction
from services.errors import PermanentError
from services.intake.queries import LabRow, is_time_zone, lab_rows, set_tests, set_zone, zone_of
from services.intake.validation import check_lab_name


class UnknownTimeZone(PermanentError):
    """Postgres knows no time zone of that name."""

    reason = "unknown_time_zone"


def labs(engine: Engine) -> list[LabRow]:
    """All labs by their code."""
    with transaction(engine) as session:
        return lab_rows(session)


def set_time_zone(engine: Engine, lab: str, time_zone: str, *, by: str) -> str:
    """Have the lab's days begin by the clock of `time_zone`, also in what is there; returns the zone before.

    A lab that has sent nothing yet is put on record.

    Raises:
        BadBatchName: the lab's code cannot be used.
        UnknownTimeZone: no zone is called so.
    """
    check_lab_name(lab)
    with transaction(engine) as session:
        if not is_time_zone(session, time_zone):
            raise UnknownTimeZone(
                f"{time_zone} is not a time zone: give its IANA name, such as Europe/Berlin or America/New_York"
            )
        before = zone_of(session, lab)
        if before != time_zone:
            set_zone(session, lab, time_zone)
            record(session, AuditKind.TIME_ZONE_SET, lab=lab, time_zone=time_zone, before=before, by=by)
        return before


def set_lab_tests(engine: Engine, lab: str, tests: bool, *, by: str) -> None:
    """Have results of any release go out to the lab's LIMS, marked as test data; or only those of trained ones.

    It holds for reports that are issued from now on. A lab that has sent nothing yet is put on record.

    Raises:
        BadBatchName: the lab's code cannot be used.
    """
    check_lab_name(lab)
    with transaction(engine) as session:
        if set_tests(session, lab, tests):
            record(session, AuditKind.LAB_TESTS_SET, lab=lab, tests=tests, by=by)
