"""Reads a manifest and finds everything that is wrong with it at once, so that a LIMS is fixed in one round."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.errors import PermanentError
from services.intake.manifest import ID_PATTERN, MAX_CELLS, MAX_FIELDS, SCHEMA, Manifest
from services.intake.privacy import personal_data_in
from services.intake.problems import ManifestRejected, Problem

MAX_MANIFEST_BYTES: Final = 32 * 2**20
MAX_PROBLEMS: Final = 500
_MAX_DEPTH: Final = 16
_MAX_KEYS: Final = 24
_OF_A_SPECIMEN: Final = ("order_number", "accession_number", "sample_type")

_HARMLESS_KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,40}$")
_CUSTOM_REASONS: Final = frozenset({"personal_data", "field_outside_batch", "um_per_px_absurd", "manifest_bad_value"})


class BadBatchName(PermanentError):
    """A lab's or batch's name that cannot be used, so that nothing is kept under it."""

    reason = "bad_batch_name"


def check_names(lab: str, batch_id: str) -> None:
    """Refuse a lab or batch name that is malformed or looks like a person's.

    Raises:
        BadBatchName: with what is wanted; the name itself is not repeated.
    """
    check_lab_name(lab)
    _check_name("batch", batch_id)


def check_lab_name(lab: str) -> None:
    """Refuse the name of a lab as `check_names` does.

    Raises:
        BadBatchName: with what is wanted; the name itself is not repeated.
    """
    _check_name("lab", lab)


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(ID_PATTERN.strip("^$"), name):
        raise BadBatchName(
            f"the {what} folder's name under incoming/ must be 1 to 63 of a–z, 0–9, '.', '_' and '-', "
            "beginning with a letter or digit; upload the batch again under such a name"
        )
    kind = personal_data_in(name)
    if kind is not None:
        raise BadBatchName(f"the {what} folder's name under incoming/ looks like {kind}; use a pseudonym")


def parse_manifest(data: bytes, *, lab: str, batch_id: str) -> Manifest:
    """The manifest in `data`, which lies at `incoming/<lab>/<batch_id>/manifest.json`.

    Raises:
        ManifestRejected: with every problem found, in the manifest's order.
    """
    document = read_json(data)
    if not isinstance(document, dict):
        raise ManifestRejected([Problem("", "manifest_not_json", "must be a JSON object")])
    if (costly := _too_much(document)) is not None:  # before a model is made, and an error kept, of each part
        raise ManifestRejected([costly])
    problems: list[Problem] = []
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors(include_url=False, include_input=False, include_context=False)]
    problems += _across(document, lab, batch_id)
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
            repeated.append(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))
        return found

    try:
        # With a byte-order mark, as .NET writes it.
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=members, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fault = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise ManifestRejected([Problem("", "manifest_not_json", fault)]) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        what = {UnicodeDecodeError: "is not UTF-8", RecursionError: "is nested too deeply"}.get(
            type(error), "holds a number that cannot be read (NaN, Infinity or thousands of digits)"
        )
        raise ManifestRejected([Problem("", "manifest_not_json", what)]) from error
    if repeated:
        message = f"{len(repeated)} object(s) hold the same key twice: {', '.join(map(_shown, repeated[:5]))}"
        raise ManifestRejected([Problem("", "manifest_repeated_key", message)])
    if sum(1 for _ in islice(_levels(document), _MAX_DEPTH + 1)) > _MAX_DEPTH:
        raise ManifestRejected([Problem("", "manifest_not_json", "is nested too deeply")])
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _levels(document: object) -> Iterator[list[object]]:
    """The document, the lists and objects in it, those in these, and so on."""
    level = [document]
    while level:
        yield level
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]


def _problem(error: ErrorDetails) -> Problem:
    location, kind = error["loc"], error["type"]
    path, last = _path(location), location[-1] if location else ""
    if kind in _CUSTOM_REASONS:
        return Problem(path, kind, error["msg"])
    if last == "schema":
        return Problem(path, "manifest_wrong_schema", f"must be {SCHEMA!r}")
    if kind == "extra_forbidden":
        return Problem(path, "manifest_unknown_key", "is not a key of a manifest; a misspelling?")
    if last == "um_per_px":
        return Problem(path, "um_per_px_missing", "is required: micrometres per pixel of the slide's images, a number")
    if kind == "missing":
        return Problem(path, "manifest_missing_key", "is required")
    if kind == "string_unicode":
        return Problem(path, "manifest_bad_value", "is not valid Unicode: rename it, or write it in UTF-8")
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


def _across(document: dict[str, Any], lab: str, batch_id: str) -> Iterator[Problem]:
    """Faults between parts of the manifest. It looks at the raw document, so that other faults do not hide these."""
    for path, expected, folder in (("lab", lab, "lab"), ("batch_id", batch_id, "batch")):
        given = document.get(path)
        if isinstance(given, str) and given != expected:
            yield Problem(
                path, "manifest_lab_mismatch" if path == "lab" else "manifest_batch_mismatch",
                f"differs from the {folder} folder that the manifest lies in",
            )  # fmt: skip
    first_slide: dict[str, str] = {}
    said_first: dict[tuple[str, str], tuple[object, str]] = {}
    first_field: dict[str, str] = {}
    for slide, slide_path in _items(document, "slides", ""):
        slide_id = slide.get("slide_id")
        if isinstance(slide_id, str) and first_slide.setdefault(slide_id, slide_path) != slide_path:
            message = f"is the same as that of {first_slide[slide_id]}"
            yield Problem(f"{slide_path}.slide_id", "manifest_duplicate_slide", message)
        for name in _OF_A_SPECIMEN:
            specimen, given = slide.get("specimen"), slide.get(name)
            if not isinstance(specimen, str) or not isinstance(given, str):
                continue
            said, first_path = said_first.setdefault((specimen, name), (given, slide_path))
            if said != given:
                message = f"differs from that of {first_path}, a slide of the same specimen: a specimen has one"
                yield Problem(f"{slide_path}.{name}", "manifest_specimen_differs", message)
        for field, field_path in _items(slide, "fields", slide_path):
            key = field.get("key")
            if isinstance(key, str) and first_field.setdefault(key, field_path) != field_path:
                message = f"is the same as that of {first_field[key]}"
                yield Problem(f"{field_path}.key", "manifest_duplicate_field", message)


def _too_much(document: dict[str, Any]) -> Problem | None:
    """More slides, fields, cells or keys than any batch has."""
    slides = document.get("slides")
    if isinstance(slides, list) and len(slides) > MAX_FIELDS:
        return Problem("slides", "too_many_slides", f"{len(slides)} slides; a batch has at most {MAX_FIELDS}: split it")
    fields = cells = 0
    for slide, _ in _items(document, "slides", ""):
        given = slide.get("fields")
        fields += len(given) if isinstance(given, list) else 0
        for field, _ in _items(slide, "fields", ""):
            found = field.get("cells")
            cells += len(found) if isinstance(found, list) else 0
    if fields > MAX_FIELDS:
        return Problem("slides", "too_many_fields", f"{fields} fields; a batch has at most {MAX_FIELDS}: split it")
    if cells > MAX_CELLS:
        return Problem("slides", "too_many_cells", f"{cells} cells; a batch has at most {MAX_CELLS}: split it")
    widest = max((len(value) for level in _levels(document) for value in level if isinstance(value, dict)), default=0)
    if widest > _MAX_KEYS:
        message = f"an object has {widest} keys; none of the manifest's has more than {_MAX_KEYS}"
        return Problem("", "manifest_unknown_key", message)
    return None


def _items(parent: dict[str, Any], name: str, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    children = parent.get(name)
    if isinstance(children, list):
        for i, child in enumerate(children):
            if isinstance(child, dict):
                yield child, f"{path}{'.' if path else ''}{name}[{i}]"
