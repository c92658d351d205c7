"""HL7's minimal lower layer protocol over TLS: one message, and its acknowledgement in original mode.

AA (or CA) is the only answer after which a message counts as delivered. AE and AR (CE, CR) stop it. Anything else, also
an acknowledgement of another message, is none.
"""

import socket
import ssl
import time
from typing import Final

from services.deliveries.answers import ANSWER_S, CONNECT_S, MOST_BYTES, NotTaken, Refused, shown

_START: Final = b"\x0b"
_END: Final = b"\x1c\r"
_TAKEN: Final = frozenset({"AA", "CA"})
_REFUSED: Final = {"AE": "hl7_ae", "CE": "hl7_ae", "AR": "hl7_ar", "CR": "hl7_ar"}


def send(address: str, context: ssl.SSLContext, message: bytes) -> str:
    """Send one message to `host:port`, and wait for its acknowledgement; returns what it says.

    Raises:
        NotTaken: no connection, no TLS, no answer in time, or one that is no acknowledgement of this message.
        Refused: AE or AR, with the error that it names.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    deadline = time.monotonic() + CONNECT_S + ANSWER_S
    try:
        with (
            socket.create_connection((host, int(port)), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.sendall(_START + message + _END)
            answer = _read(connection, deadline)
    except ssl.SSLError as error:
        raise NotTaken("tls_failed", f"no TLS with {address}: {error}") from error
    except TimeoutError as error:
        raise NotTaken("no_answer", f"{address} did not answer within {CONNECT_S + ANSWER_S:.0f} s") from error
    except OSError as error:
        raise NotTaken("not_reached", f"{address} cannot be reached: {error}") from error
    return _acknowledged(answer, message_id(message))


def message_id(message: bytes) -> str:
    """MSH-10 of a message of ours."""
    return message.split(b"\r", 1)[0].split(b"|")[9].decode()


def _read(connection: ssl.SSLSocket, deadline: float) -> bytes:
    answer = b""
    while _END not in answer:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(8192)
        if not part:
            raise NotTaken("no_answer", "the connection was closed before an acknowledgement came")
        answer += part
        if len(answer) > MOST_BYTES:
            raise NotTaken("unreadable_answer", f"the answer has more than {MOST_BYTES} bytes")
    return answer


def _acknowledged(answer: bytes, sent: str) -> str:
    """What the acknowledgement says.

    Raises:
        NotTaken: it is none, or one of another message.
        Refused: AE or AR.
    """
    text = answer.split(_END, 1)[0].lstrip(_START).decode("utf-8", "replace")
    segments = [line for line in text.replace("\n", "\r").split("\r") if line]
    if not segments or not segments[0].startswith("MSH") or len(segments[0]) < 4:
        raise NotTaken("unreadable_answer", f"no HL7 message came back: {shown(text)}")
    fields = {line[:3]: line.split(segments[0][3]) for line in reversed(segments)}  # of each kind the first
    code, of, said = [*fields.get("MSA", [])[1:4], "", "", ""][:3]
    if of != sent:
        raise NotTaken("unreadable_answer", f"it acknowledges another message: {shown(text)}")
    words = shown(" ".join([code, said, *fields.get("ERR", [])]))
    if code in _TAKEN:
        return words
    if code in _REFUSED:
        raise Refused(_REFUSED[code], words)
    raise NotTaken("unreadable_answer", f"{shown(code)} is no acknowledgement code: {shown(text)}")
