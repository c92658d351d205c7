"""The two kinds of failure: one that a retry may fix, and one that it cannot.

The retry policy follows the class of an error and never its message. `reason` is the stable code that goes into the
database, the reports and the metrics; the message is for people and states who, what, and what to do.
"""

from typing import ClassVar, Final


class MorphbatchError(Exception):
    """Base of every error raised on purpose by morphbatch."""

    reason: ClassVar[str] = "error"


class PermanentError(MorphbatchError):
    """Trying again cannot help: what was given is wrong. The slide is quarantined under `reason`."""

    reason: ClassVar[str] = "permanent"


class TransientError(MorphbatchError):
    """The same work may succeed later: it is tried again, and the attempt is counted."""

    reason: ClassVar[str] = "transient"


class OutageError(TransientError):
    """A dependency is down. The work waits until it is back; no attempt is counted against the slide."""

    reason: ClassVar[str] = "outage"


class ConfigurationError(MorphbatchError):
    """The installation is set up wrongly; nothing is attempted until an operator fixes it."""

    reason: ClassVar[str] = "configuration"


NOT_THE_WORKS_FAULT: Final = (OutageError, ConfigurationError)
"""What is asked of the work is right, and a dependency is down or refuses us: it waits, and no attempt is counted."""
