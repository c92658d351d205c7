"""The labs that are on record, the time zone by whose clock their days begin, and when their slides are started."""

import re
from datetime import time
from typing import Final

from sqlalchemy import Engine

from services.database.audit import AuditKind, record
from services.database.session import transaction
from services.errors import PermanentError
from services.intake.queries import (
    LabRow,
    is_time_zone,
    lab_rows,
    set_tests,
    set_window_of,
    set_zone,
    window_of,
    zone_of,
)
from services.intake.validation import check_lab_name


class UnknownTimeZone(PermanentError):
    """Postgres knows no time zone of that name."""

    reason = "unknown_time_zone"


class UnusableWindow(PermanentError):
    """A window is two times of day, and they differ."""

    reason = "unusable_window"


_WINDOW: Final = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")
_ALWAYS: Final = "always"


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


def set_window(engine: Engine, lab: str, window: str, *, by: str) -> str:
    """Have the lab's slides started only within `window`, such as 20:00-06:00 by its clock; returns the one before.

    `always`: at any time. Urgent batches are started at any time. A lab that has sent nothing yet is put on record.

    Raises:
        BadBatchName: the lab's code cannot be used.
        UnusableWindow: `window` is none.
    """
    check_lab_name(lab)
    wanted = _read_window(window)
    with transaction(engine) as session:
        before = window_of(session, lab)
        if before != wanted:
            set_window_of(session, lab, wanted)
            said = shown_window(wanted)
            record(session, AuditKind.WINDOW_SET, lab=lab, window=said, before=shown_window(before), by=by)
        return shown_window(before)


def shown_window(window: tuple[time, time] | None) -> str:
    """As `set_window` takes it."""
    return _ALWAYS if window is None else f"{window[0]:%H:%M}-{window[1]:%H:%M}"


def _read_window(text: str) -> tuple[time, time] | None:
    if text == _ALWAYS:
        return None
    found = _WINDOW.fullmatch(text)
    try:
        window = (time.fromisoformat(found[1]), time.fromisoformat(found[2])) if found else None
    except ValueError:  # 24:30
        window = None
    if window is None or window[0] == window[1]:
        raise UnusableWindow(f"{text} is no window: give two times of day, such as 20:00-06:00, or {_ALWAYS}")
    return window
