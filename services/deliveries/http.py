"""Messages over HTTP: webhooks signed as Standard Webhooks has it, and FHIR transactions.

Where they go is set by operators alone. Redirects are not followed, an answer is read up to a limit, and all of it must
have come within a time.
"""

import base64
import hashlib
import hmac
import json
import ssl
import time
from typing import Any, Final

import urllib3

from services.deliveries.answers import ANSWER_S, CONNECT_S, NotTaken, Refused, shown

SIGNING_KEY: Final = "whsec_"
"""How a secret begins."""
_MAY_PASS: Final = frozenset({408, 421, 425, 429})
_GONE: Final = 410
_MOST_BYTES: Final = 4 * 2**20
"""No more of an answer is read: that of a transaction may name a hundred resources."""


def post_webhook(url: str, context: ssl.SSLContext | None, secret: str, message_id: str, body: bytes) -> str:
    """Post one event; returns the status that it was taken with.

    Raises:
        NotTaken: no connection, no answer in time, or any status but 2xx.
        Refused: 410, by which a receiver says that it wants no more.
    """
    at = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Webhook-Id": message_id,
        "Webhook-Timestamp": at,
        "Webhook-Signature": signature(secret, message_id, at, body),
    }
    status, answer = _post(url, context, headers, body)
    if status // 100 == 2:
        return f"HTTP {status}"
    if status == _GONE:
        raise Refused("http_410", f"HTTP {status}: {shown(answer.decode('utf-8', 'replace'))}")
    raise NotTaken(f"http_{status}", f"HTTP {status}: {shown(answer.decode('utf-8', 'replace'))}")


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of id, time (Unix seconds) and body, base64 (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix(SIGNING_KEY))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def post_bundle(url: str, context: ssl.SSLContext | None, token: str | None, bundle: bytes) -> str:
    """Post one transaction Bundle to the base of a FHIR server; returns what it was taken with.

    Raises:
        NotTaken: no connection, no answer in time, a status that may pass, or an answer that is no transaction's.
        Refused: the server refuses the Bundle, with the diagnostics of its OperationOutcome.
    """
    kind = "application/fhir+json"
    headers = {"Content-Type": kind, "Accept": kind, "Prefer": "return=minimal"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    status, answer = _post(url, context, headers, bundle)
    try:
        said: Any = json.loads(answer)
    except ValueError:
        said = None
    if status // 100 == 2:
        if not isinstance(said, dict) or said.get("resourceType") != "Bundle":
            raise NotTaken("unreadable_answer", f"HTTP {status}, but no Bundle came back: {shown(repr(answer))}")
        return f"HTTP {status}"
    words = f"HTTP {status}: {_diagnostics(said) or shown(answer.decode('utf-8', 'replace'))}"
    if status // 100 == 4 and status not in _MAY_PASS:
        raise Refused(f"http_{status}", words)
    raise NotTaken(f"http_{status}", words)


def _diagnostics(outcome: Any) -> str:
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    if not isinstance(issues, list):
        return ""
    said = (issue.get("diagnostics") or issue.get("code") for issue in issues if isinstance(issue, dict))
    return shown("; ".join(str(words) for words in said if words))


def _post(url: str, context: ssl.SSLContext | None, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    deadline = time.monotonic() + CONNECT_S + ANSWER_S
    host = urllib3.util.parse_url(url).host
    pool = urllib3.PoolManager(num_pools=1, ssl_context=context, retries=False)
    try:
        answer = pool.request(
            *("POST", url),
            body=body,
            headers={"User-Agent": "morphbatch", **headers},
            timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S),
            redirect=False,
            preload_content=False,
        )
        try:
            return answer.status, _read(answer, deadline)
        finally:
            answer.close()
    except urllib3.exceptions.SSLError as error:
        raise NotTaken("tls_failed", f"no TLS with {host}: {error}") from error
    except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
        raise NotTaken("no_answer", f"{host} did not answer in time") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise NotTaken("not_reached", f"{host} cannot be reached: {shown(str(error))}") from error
    finally:
        pool.clear()


def _read(answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    content = b""
    while part := answer.read1(65536):
        content += part
        if len(content) > _MOST_BYTES:
            raise NotTaken("unreadable_answer", f"the answer has more than {_MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return content
