"""Whatever bytes stand where a manifest should: it is read, or refused with reasons. `make fuzz` tries for minutes."""

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.intake.manifest import Manifest
from services.intake.problems import ManifestRejected, Problem
from services.intake.validation import MAX_PROBLEMS, parse_manifest
from tests.unit.intake.test_manifest import GOOD

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.sampled_from(["0" * 64, "field", "crop", "../x", "a//b", "\ud800", "S-1", "night-1", 1e308, -0.0, 2**70])
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
KEYS = st.sampled_from(["schema", "lab", "slides", "slide_id", "fields", "key", "sha256", "cells", "box", "extra"])


def read(data: bytes) -> Manifest | None:
    """What the service does with the bytes; anything but these two outcomes fails the test."""
    problems: tuple[Problem, ...] = ()
    try:
        return parse_manifest(data, lab="berlin", batch_id="night-2026-11-23")
    except ManifestRejected as error:
        problems = error.problems
    assert 1 <= len(problems) <= MAX_PROBLEMS + 1
    for problem in problems:
        assert problem.reason
        assert problem.message
        (problem.path + problem.message).encode()  # it can be stored and sent
    return None


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    assert read(data) is None


@given(VALUES)
def test_any_json(document: object) -> None:
    assert read(json.dumps(document).encode()) is None


@given(st.data())
def test_a_good_manifest_with_places_changed(data: st.DataObject) -> None:
    document: Any = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = document
        while True:
            inside = [k for k, v in _members(place) if isinstance(v, dict | list) and v]
            if not inside or data.draw(st.booleans()):
                break
            place = place[data.draw(st.sampled_from(inside))]
        _change(place, data)
    manifest = read(json.dumps(document).encode())
    if manifest is not None:
        # What is taken is written again as it was meant, and read again the same.
        again = read(json.dumps(manifest.as_json()).encode())
        assert again is not None
        assert again.fingerprint() == manifest.fingerprint()


@given(st.data())
def test_a_good_manifest_with_bytes_changed(data: st.DataObject) -> None:
    whole = bytearray(json.dumps(GOOD).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not whole:
            whole = bytearray(b" ")
    read(bytes(whole))


def _members(place: Any) -> list[tuple[Any, Any]]:
    return list(place.items()) if isinstance(place, dict) else list(enumerate(place))


def _change(place: Any, data: st.DataObject) -> None:
    keys = [key for key, _ in _members(place)]
    match data.draw(st.sampled_from(["set", "remove", "add", "repeat"])), keys:
        case "set", [_, *_]:
            place[data.draw(st.sampled_from(keys))] = data.draw(VALUES)
        case "remove", [_, *_]:
            del place[data.draw(st.sampled_from(keys))]
        case "repeat", [_, *_] if isinstance(place, list):
            place.append(copy.deepcopy(data.draw(st.sampled_from(place))))
        case _ if isinstance(place, dict):
            place[data.draw(KEYS)] = data.draw(VALUES)
        case _:
            place.append(data.draw(VALUES))
