"""Every command of the app with its parameters, and what can be wrong with each."""

import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from services.cli.main import app, main
from services.settings import load_settings


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a command. `flag` is empty for an argument."""

    name: str
    flag: str
    kind: str  # path, int, float, str
    least: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the command line ended."""

    code: Any
    stdout: str
    stderr: str


_APP = typer.main.get_command(app)


@cache
def all_commands() -> dict[str, list[Parameter]]:
    """Every command by its words, with the parameters that take a value."""
    return dict(_walk(_APP, ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, list[Parameter]]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*words, name))
        return
    yield (
        " ".join(words),
        [
            Parameter(
                each.name,
                each.opts[0] if each.param_type_name == "option" else "",
                _kind(each.type_descriptor.annotation),
                each.min,
            )
            for each in command.params
            if each.name != "help" and each.type_descriptor.annotation is not bool
        ],
    )


def _kind(annotation: Any) -> str:
    inner = getattr(annotation, "__args__", [annotation])[0]
    return {Path: "path", int: "int", float: "float"}.get(inner, "str")


def arguments(command: str, given: dict[str, str]) -> list[str]:
    """The words of a command line: the command, and a value for each parameter of `given`."""
    words = command.split()
    for parameter in all_commands()[command]:
        if parameter.name in given:
            value = given[parameter.name]
            words += [f"{parameter.flag}={value}"] if parameter.flag else [value]
    return words


def run(words: list[str], patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Outcome:
    """The command line in this process."""
    load_settings.cache_clear()
    patch.setattr(typer.main, "get_command", lambda _: _APP)  # made once, not for each of a thousand runs
    patch.setattr(sys, "argv", ["morphbatch", *words])
    capture.readouterr()
    try:
        main()
        code: Any = "nothing: main() came back"
    except SystemExit as ended:
        code = ended.code or 0
    except Exception:  # noqa: BLE001 - which is what must not happen
        code = traceback.format_exc()
    captured = capture.readouterr()
    return Outcome(code, captured.out, captured.err)


def fault_of(outcome: Outcome) -> str | None:
    """What is wrong with the way in which a command was refused: exit code 2 and exactly one message are right."""
    if outcome.code != 2:
        return f"ended with {outcome.code}\n{outcome.stderr}"
    if not outcome.stderr.startswith("error (") or outcome.stderr.count("error (") != 1:
        return f"not exactly one message: {outcome.stderr}"
    if len(outcome.stderr) > 1500 or "Traceback" in outcome.stderr:
        return f"not a message to read: {outcome.stderr[:3000]}"
    return None


DOCUMENTS = (
    "release.json", "manifest.json", "truth.jsonl", "annotations.jsonl", "run.json", "fusion.json", "choice.json",
    "validation.npz", "forms/openvino-int8/form.json",
)  # fmt: skip
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "an_object": b"{}\n",
    "a_list": b"[1]\n",
    "deep": b"[" * 100_000,
    "huge_number": b'{"id": ' + b"9" * 5000 + b"}",
}


def wrong_inputs(folder: Path) -> dict[str, Path]:
    """What a path that a command reads may name instead, made in `folder`."""
    made = {"missing": folder / "not" / "there", "empty_folder": folder / "empty-folder"}
    made["empty_folder"].mkdir(parents=True)
    loop = folder / "loop"
    loop.symlink_to(loop)
    made["link_to_itself"] = loop
    made["name_too_long"] = folder / ("x" * 300)
    made["not_utf8"] = folder / os.fsdecode(b"caf\xe9")
    for name, content in CONTENTS.items():
        made[f"file_{name}"] = folder / f"{name}.csv"
        made[f"file_{name}"].write_bytes(content)
        made[f"folder_of_{name}"] = _folder_of(folder / f"folder-{name}", content)
    # Also for root, whom no mode keeps out.
    unreadable = folder / "unreadable"
    unreadable.symlink_to("/proc/self/mem")
    made["unreadable"] = unreadable
    made["folder_of_unreadable"] = _folder_of(folder / "folder-unreadable", None)
    made["folder_of_folders"] = folder / "folders"
    for name in DOCUMENTS:
        (made["folder_of_folders"] / name).mkdir(parents=True)
    return made


def _folder_of(folder: Path, content: bytes | None) -> Path:
    for name in (*DOCUMENTS, "slide/field.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            (folder / name).symlink_to("/proc/self/mem")
        else:
            (folder / name).write_bytes(content)
    return folder


def wrong_outputs(folder: Path) -> dict[str, Path]:
    """What a path that a command writes may name and must not."""
    taken = folder / "taken"
    taken.mkdir(parents=True)
    (taken / "kept.txt").write_text("kept")
    (folder / "file").write_text("kept")
    return {
        "folder_exists": taken,
        "is_a_file": folder / "file",
        "below_a_file": folder / "file" / "deeper",
        "cannot_be_made": Path("/proc/morphbatch/out"),
    }


def wrong_values(parameter: Parameter) -> list[str]:
    """Values that a number cannot have."""
    values = ["many", "", "1,5", "0x10"]
    if parameter.kind == "float":
        values += ["nan", "inf", "-inf"]
    else:
        values += ["1.5"]
    if parameter.least is not None:
        values.append(str(parameter.least - 1))
    return values
