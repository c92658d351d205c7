"""What may lie in Redis where our messages should, by kind."""

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from typing import Any, Final

from services.dispatch import ANALYSE_SLIDE, CLOSE_BATCH, CONTROL, INTAKE_BATCH, MAKE_PARTITIONS, SWEEP_DATABASE

Document = dict[str, Any]

NOTHING_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
DEEP = 5000


def good_message(task: str = SWEEP_DATABASE, args: object = (), queue: str = CONTROL) -> Document:
    """A message as Celery's protocol 2 writes it into Redis."""
    name = str(uuid.uuid4())
    return {
        "body": encoded([args, {}, NOTHING_EMBEDDED]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": name, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": name, "parent_id": None,
            "argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@test", "ignore_result": None,
            "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
        },
        "properties": {
            "correlation_id": name, "reply_to": str(uuid.uuid4()), "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue}, "priority": 0, "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip


def broadcast() -> Document:
    """What is asked of all workers, as Celery writes it."""
    return {
        "body": encoded({"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": None},
        "properties": {
            "delivery_mode": 2, "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}, "priority": 0,
            "body_encoding": "base64", "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip


def encoded(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def changed(path: str, value: object) -> Document:
    """A good message with another value at `path`: keys, joined by `/`."""
    message = good_message()
    *way, last = path.split("/")
    part = message
    for key in way:
        part = part[key]
    part[last] = value
    return message


def without(path: str) -> Document:
    message = good_message()
    *way, last = path.split("/")
    part = message
    for key in way:
        part = part[key]
    del part[last]
    return message


def _documents() -> Iterator[tuple[str, Document]]:
    """Well-formed JSON objects that are no messages of ours."""
    yield "an empty object", {}
    for path in (
        "body", "content-type", "content-encoding", "headers", "headers/task", "headers/id", "properties",
        "properties/delivery_tag", "properties/delivery_info", "properties/delivery_info/exchange",
        "properties/delivery_info/routing_key", "properties/body_encoding",
    ):  # fmt: skip
        yield f"{path} missing", without(path)
    for path in ("body", "content-type", "content-encoding", "headers", "properties"):
        for value in (None, 5, ["a"], "text", {"a": 1}):
            if not (path == "body" and value == "text"):
                yield f"{path} is {json.dumps(value)}", changed(path, value)
    for value in (None, 5, ["a"], {"a": 1}, "", "os.system", "celery.backend_cleanup", "x" * 10_000, "a\nb"):
        yield f"headers/task is {json.dumps(value)[:30]}", changed("headers/task", value)
    for value in (None, 5, ["a"], {"a": 1}, "", "x" * 100_000, "no uuid"):
        yield f"headers/id is {json.dumps(value)[:30]}", changed("headers/id", value)
    for value in (5, [], {}, "tomorrow", "2026-13-45T99:99:99", "9999-12-31T23:59:59", 1e300):
        yield f"headers/eta is {json.dumps(value)}", changed("headers/eta", value)
    for value in ([], {}, "tomorrow", "2026-13-45T99:99:99", 1e300):
        yield f"headers/expires is {json.dumps(value)}", changed("headers/expires", value)
    for value in (5, "no", [1], ["a", "b"], [1, 2, 3], {"soft": 1}, [-1, -1], [1e300, None]):
        yield f"headers/timelimit is {json.dumps(value)}", changed("headers/timelimit", value)
    for value in ("many", -1, 10**30, [1], {}):
        yield f"headers/retries is {json.dumps(value)[:30]}", changed("headers/retries", value)
    for value in ("zstd", "gzip", 5, ["zlib"]):
        yield f"headers/compression is {json.dumps(value)}", changed("headers/compression", value)
    for value in (5, [], {}, "", "x" * 10_000):
        yield f"delivery_tag is {json.dumps(value)[:30]}", changed("properties/delivery_tag", value)
    for value in (5, [], "text", {"exchange": [], "routing_key": {}}, {"exchange": "nowhere", "routing_key": "nobody"}):
        yield f"delivery_info is {json.dumps(value)}", changed("properties/delivery_info", value)
    for value in (None, 5, [], "rot13", "utf-8", "BASE64\x00"):
        yield f"body_encoding is {json.dumps(value)}", changed("properties/body_encoding", value)
    for value in ("application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "application/data"):
        yield f"content-type is {value}", changed("content-type", value)
    for value in ("binary", "utf-16", "klingon"):
        yield f"content-encoding is {value}", changed("content-encoding", value)
    yield (
        "a pickled body",
        {
            **changed("content-type", "application/x-python-serialize"),
            "content-encoding": "binary",
            "body": base64.b64encode(pickle.dumps([[], {}, NOTHING_EMBEDDED])).decode(),
        },
    )
    yield "a body that is no base64", changed("body", "$$$ no base64 $$$")
    yield "a body that is no ASCII", changed("body", "Ж" * 40)
    yield "a body of base64 that is no JSON", changed("body", base64.b64encode(b"\xff\x00 no JSON").decode())
    yield "a body that is nested deeply", changed("body", base64.b64encode(b"[" * DEEP + b"]" * DEEP).decode())
    yield "a huge body", changed("body", encoded([["x" * 5_000_000], {}, NOTHING_EMBEDDED]))
    for content in (
        None,
        5,
        "text",
        {},
        [],
        [[]],
        [[], {}],
        [[], {}, None],
        [[], {}, {}, 4],
        [{}, [], {}],
        {"args": []},
    ):
        yield f"a body that holds {json.dumps(content)}", changed("body", encoded(content))
    for name in NOTHING_EMBEDDED:
        for value in (5, [5], [{"task": "nobody"}]):
            embedded = [[], {}, {**NOTHING_EMBEDDED, name: value}]
            yield f"{name} is {json.dumps(value)}", changed("body", encoded(embedded))
    yield "keyword arguments", changed("body", encoded([[], {"force": True}, NOTHING_EMBEDDED]))
    yield "a task of protocol 1", {
        **good_message(), "headers": {}, "body": encoded({"task": SWEEP_DATABASE, "id": "1", "args": 5, "kwargs": []})
    }  # fmt: skip
    for task, arguments in (
        (SWEEP_DATABASE, [1]), (MAKE_PARTITIONS, ["next month"]),
        (ANALYSE_SLIDE, []), (ANALYSE_SLIDE, ["7"]), (ANALYSE_SLIDE, [None]), (ANALYSE_SLIDE, [7, 8]),
        (ANALYSE_SLIDE, [-1]), (ANALYSE_SLIDE, [0]), (ANALYSE_SLIDE, [10**30]), (ANALYSE_SLIDE, [1.5]),
        (ANALYSE_SLIDE, [True]), (ANALYSE_SLIDE, [[7]]), (ANALYSE_SLIDE, {"analysis_id": 7}),
        (CLOSE_BATCH, [{}]), (CLOSE_BATCH, [2**63]), (INTAKE_BATCH, ["north"]), (INTAKE_BATCH, ["north", 5]),
        (INTAKE_BATCH, ["..", "night"]), (INTAKE_BATCH, ["north", "a/b"]), (INTAKE_BATCH, ["north", "x" * 100_000]),
        (INTAKE_BATCH, ["north", "a\nb"]), (INTAKE_BATCH, [None, None]),
        (INTAKE_BATCH, [{"__type__": "datetime", "__value__": "now"}, "night"]),
    ):  # fmt: skip
        yield f"{task} of {json.dumps(arguments)[:40]}", good_message(task, arguments)


def _texts() -> Iterator[tuple[str, bytes]]:
    """Anything else that may lie in the list."""
    yield "nothing", b""
    yield "a space", b" "
    yield "binary garbage", bytes(range(256)) * 8
    yield "half a message", json.dumps(good_message()).encode()[:200]
    yield "a message with a trailing comma", json.dumps(good_message()).encode()[:-1] + b",}"
    yield "UTF-16", json.dumps(good_message()).encode("utf-16")
    yield "pickle", pickle.dumps(good_message())
    yield "deep lists", b"[" * 200_000 + b"]" * 200_000
    yield "deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "a huge text", b'"' + b"x" * 20_000_000 + b'"'
    yield "a huge number", b"9" * 100_000
    yield "a message twice", json.dumps(good_message()).encode() * 2
    yield "NaN", b"NaN"
    for value in (None, True, 5, "text", [], [1, 2], [[]]):
        yield f"the value {json.dumps(value)}", json.dumps(value).encode()
    yield "a repeated key", json.dumps(good_message()).encode()[:-1] + b', "headers": 5}'
    yield "lone surrogates", json.dumps(changed("headers/task", "\ud800")).encode()


def _broadcasts() -> Iterator[tuple[str, bytes]]:
    order = broadcast()
    yield from _texts()
    for key in order:
        for value in (None, 5, [], "text"):
            yield f"{key} is {json.dumps(value)}", json.dumps({**order, key: value}).encode()
    for asked in (
        None, 5, [], {}, {"method": 5}, {"method": "ping", "arguments": 5},
        {"method": "ping", "destination": 5}, {"method": "ping", "reply_to": "nobody"},
        {"method": "ping", "reply_to": {"exchange": "", "routing_key": CONTROL}},
    ):  # fmt: skip
        yield f"it asks {json.dumps(asked)}", json.dumps({**order, "body": encoded(asked)}).encode()
    yield "a clock that is none", json.dumps({**order, "headers": {"clock": "noon"}}).encode()


def _kept() -> Iterator[tuple[str, bytes]]:
    message = good_message()
    yield "nothing", b""
    yield "binary garbage", b"\xff\xfe\x00"
    yield "no JSON", b"garbage"
    yield "a number", b"5"
    yield "a pair", json.dumps([message, ""]).encode()
    yield "no message", json.dumps([5, "", CONTROL]).encode()
    yield "a broken message", json.dumps([changed("headers", 5), "", CONTROL]).encode()
    yield "a queue that is none", json.dumps([message, {}, []]).encode()
    yield "a queue of nobody", json.dumps([message, "", "nobody"]).encode()
    yield "deep lists", b"[" * 100_000 + b"]" * 100_000


QUEUED: Final = {
    **{name: json.dumps(document).encode() for name, document in _documents()},
    **dict(_texts()),
}
"""In the list of a queue."""

BROADCASTS: Final = dict(_broadcasts())
"""Told to all workers."""

KEPT: Final = dict(_kept())
"""In the hash of what was not acknowledged."""

OTHER_TYPES: Final = (
    CONTROL, f"{CONTROL}\x06\x163", f"{CONTROL}\x06\x169", "unacked", "unacked_index", f"_kombu.binding.{CONTROL}",
)  # fmt: skip
"""Keys that may hold something of another type."""
