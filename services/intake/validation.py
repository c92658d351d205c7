"""Reads a manifest and finds everything that is wrong with it at once, so that a LIMS is mended in one round."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.errors import PermanentError
from services.intake.manifest import ID_PATTERN, MAX_FIELDS, SCHEMA, Manifest
from services.intake.privacy import personal_data_in
from services.intake.problems import ManifestRejected, Problem

MAX_MANIFEST_BYTES: Final = 32 * 2**20
MAX_PROBLEMS: Final = 500
_MAX_DEPTH: Final = 16

_HARMLESS_KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,40}$")
_CUSTOM_REASONS: Final = frozenset({"personal_data", "field_outside_batch", "um_per_px_absurd", "manifest_bad_value"})


class BadBatchName(PermanentError):
    """A lab's or batch's name that cannot be used, so that nothing is kept under it."""

    reason = "bad_batch_name"


def check_names(lab: str, batch_code: str) -> None:
    """Refuse a lab or batch name that is malformed or looks like a person's.

    Raises:
        BadBatchName: with what is wanted; the name itself is not repeated.
    """
    for what, name in (("lab", lab), ("batch", batch_code)):
        if not re.fullmatch(ID_PATTERN.strip("^$"), name):
            raise BadBatchName(
                f"the {what} folder's name under incoming/ must be 1 to 63 of a–z, 0–9, '.', '_' and '-', "
                "beginning with a letter or digit; upload the batch again under such a name"
            )
        kind = personal_data_in(name)
        if kind is not None:
            raise BadBatchName(f"the {what} folder's name under incoming/ looks like {kind}; use a pseudonym")


def parse_manifest(data: bytes, *, lab: str, batch_code: str) -> Manifest:
    """The manifest in `data`, which lies at `incoming/<lab>/<batch_code>/manifest.json`.

    Raises:
        ManifestRejected: with every problem found, in the manifest's order.
    """
    document = read_json(data)
    if not isinstance(document, dict):
        raise ManifestRejected([Problem("", "manifest_not_json", "must be a JSON object")])
    problems: list[Problem] = []
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors(include_url=False, include_input=False, include_context=False)]
    problems += _across(document, lab, batch_code)
    if problems or manifest is None:
        if len(problems) > MAX_PROBLEMS:
            rest = len(problems) - MAX_PROBLEMS
            problems = [*problems[:MAX_PROBLEMS], Problem("", "manifest_more_problems", f"and {rest} more")]
        raise ManifestRejected(problems)
    return manifest


def read_json(data: bytes) -> object:
    """The JSON document in `data`, with no key given twice and of bounded size and depth.

    Raises:
        ManifestRejected: it is none.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        message = f"has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are read: split the batch"
        raise ManifestRejected([Problem("", "manifest_too_large", message)])
    repeated: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.extend(key for i, (key, _) in enumerate(pairs) if any(key == k for k, _ in pairs[:i]))
        return found

    try:
        # With a byte-order mark, as .NET writes it.
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=members, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ManifestRejected([Problem("", "manifest_not_json", f"is no JSON: {error.msg} at {where}")]) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        what = {UnicodeDecodeError: "is not UTF-8", RecursionError: "is nested too deeply"}.get(
            type(error), "holds a number that cannot be read (NaN, Infinity or thousands of digits)"
        )
        raise ManifestRejected([Problem("", "manifest_not_json", what)]) from error
    if repeated:
        message = f"{len(repeated)} object(s) hold the same key twice: {', '.join(map(_shown, repeated[:5]))}"
        raise ManifestRejected([Problem("", "manifest_repeated_key", message)])
    if _depth(document) > _MAX_DEPTH:
        raise ManifestRejected([Problem("", "manifest_not_json", "is nested too deeply")])
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _depth(document: object) -> int:
    deepest, level = 0, [document]
    while level and deepest <= _MAX_DEPTH:
        deepest += 1
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
    return deepest


def _problem(error: ErrorDetails) -> Problem:
    location, kind = error["loc"], error["type"]
    path, last = _path(location), location[-1] if location else ""
    if kind in _CUSTOM_REASONS:
        return Problem(path, kind, error["msg"])
    if last == "schema":
        return Problem(path, "manifest_wrong_schema", f"must be {SCHEMA!r}")
    if kind == "extra_forbidden":
        return Problem(path, "manifest_unknown_key", "is not a key of this form; a misspelling?")
    if last == "um_per_px":
        return Problem(path, "um_per_px_missing", "is needed: micrometres per pixel of the slide's images, a number")
    if kind == "missing":
        return Problem(path, "manifest_missing_key", "is needed")
    if last == "fields" and kind == "too_long":
        return Problem(path, "too_many_fields", f"a batch has at most {MAX_FIELDS} fields; split it")
    return Problem(path, "manifest_bad_value", error["msg"][:1].lower() + error["msg"][1:])


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{_shown(part)}"
    return text


def _shown(key: str) -> str:
    """A key as it may appear in a message: an unknown one may be anything, even a name."""
    return key if _HARMLESS_KEY.match(key) and personal_data_in(key) is None else "…"


def _across(document: dict[str, Any], lab: str, batch_code: str) -> Iterator[Problem]:
    """Faults between parts of the manifest. It looks at the raw document, so that other faults do not hide these."""
    for path, expected, folder in (("lab", lab, "lab"), ("batch_id", batch_code, "batch")):
        given = document.get(path)
        if isinstance(given, str) and given != expected:
            yield Problem(
                path, "manifest_lab_mismatch" if path == "lab" else "manifest_batch_mismatch",
                f"differs from the {folder} folder that the manifest lies in",
            )  # fmt: skip
    first_slide: dict[str, str] = {}
    first_field: dict[str, str] = {}
    count = 0
    for slide, slide_path in _items(document, "slides", ""):
        slide_id = slide.get("slide_id")
        if isinstance(slide_id, str) and first_slide.setdefault(slide_id, slide_path) != slide_path:
            message = f"is the same as that of {first_slide[slide_id]}"
            yield Problem(f"{slide_path}.slide_id", "manifest_duplicate_slide", message)
        for field, field_path in _items(slide, "fields", slide_path):
            count += 1
            key = field.get("key")
            if isinstance(key, str) and first_field.setdefault(key, field_path) != field_path:
                message = f"is the same as that of {first_field[key]}"
                yield Problem(f"{field_path}.key", "manifest_duplicate_field", message)
    if count > MAX_FIELDS:
        yield Problem("slides", "too_many_fields", f"{count} fields; a batch has at most {MAX_FIELDS}: split it")


def _items(parent: dict[str, Any], name: str, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    children = parent.get(name)
    if isinstance(children, list):
        for i, child in enumerate(children):
            if isinstance(child, dict):
                yield child, f"{path}{'.' if path else ''}{name}[{i}]"
