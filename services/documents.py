"""Reads documents from disk: whatever is wrong with one becomes an error that names the file, the place and the fault.

Callers name the class of the error, since its reason code belongs to them.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from services.errors import MorphbatchError

Model = TypeVar("Model", bound=BaseModel)

_SHOWN: Final = 8


def describe(error: ValidationError, whole: str = "file") -> str:
    """Each fault that pydantic found as `place: what`, on one line; `whole` names the place of a fault of it all."""
    faults = [
        f"{'.'.join(map(str, found['loc'])) or whole}: {found['msg'].removeprefix('Value error, ')}"
        for found in error.errors()
    ]
    more = len(faults) - _SHOWN
    return "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def read_text(path: Path, error: type[MorphbatchError]) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        error: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        raise error(f"{path}: {why(fault)}") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{path} is not a text file: byte {fault.start} is not UTF-8") from fault


def read_json(path: Path, error: type[MorphbatchError]) -> Any:
    """The value in a JSON file.

    Raises:
        error: it cannot be read, or is not JSON.
    """
    return _parse_json(read_text(path, error), str(path), error)


def read_json_object(path: Path, error: type[MorphbatchError]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        error: it cannot be read, or is not a JSON object.
    """
    return _an_object(read_json(path, error), str(path), error)


def read_json_lines(path: Path, error: type[MorphbatchError]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in a file of one JSON object per line, each with its place: `FILE, line N`. Empty lines are skipped.

    Raises:
        error: it cannot be read, or a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path, error).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _an_object(_parse_json(line, place, error), place, error)


def read_toml(path: Path, error: type[MorphbatchError]) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        error: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path, error))
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise error(f"{path} is not valid TOML: {fault}") from fault


def read_model(path: Path, model: type[Model], error: type[MorphbatchError]) -> Model:
    """A JSON file as an instance of a pydantic model.

    Raises:
        error: it cannot be read, is not JSON, or not what the model asks for; names every fault.
    """
    try:
        return model.model_validate_json(read_text(path, error))
    except ValidationError as fault:
        raise error(f"{path}: {describe(fault)}") from fault


def why(error: OSError) -> str:
    """What the operating system says is wrong, without number and file name: `Permission denied`."""
    return error.strerror or str(error)


def _parse_json(text: str, place: str, error: type[MorphbatchError]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"{place} is not valid JSON: {fault}") from fault


def _an_object(value: Any, place: str, error: type[MorphbatchError]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise error(f"{place}: must be a JSON object, not {type(value).__name__}")
    return value
