"""What may become of one attempt to deliver a message."""

from typing import Final

from services.errors import PermanentError, TransientError

MOST_BYTES: Final = 64 * 2**10
"""No more of an answer is read."""
MOST_SHOWN: Final = 300
CONNECT_S: Final = 5.0
ANSWER_S: Final = 15.0
"""Seconds that a target has to take the connection, and then to take the message and answer, however slowly."""


class NotTaken(TransientError):
    """The target could not be reached or did not say that it has the message: it is sent again, the same."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = reason


class Refused(PermanentError):
    """The target has the message and does not want it: sending it again cannot help until a person has."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = reason


def shown(text: str) -> str:
    """An answer as it is stored and shown: one line of printable characters, of bounded length."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * MOST_SHOWN])
    return " ".join(line.split())[:MOST_SHOWN]
