"""Keys of objects: what they look like, that they are read as they were made, and that nobody else makes any."""

import ast
import re
from collections.abc import Iterator

import pytest

from services import keys
from tests.places import CHECKOUT

PREFIX = re.compile(r"(incoming|results|releases|slides)/(\S*/)?")
NAMES = {"manifest.json", "report.json", "rejected.json", "refused.json"}
CONSTANTS = {name for name in vars(keys) if name.isupper()}


def test_keys_look_as_the_documents_promise() -> None:
    assert keys.manifest_key("berlin", "night-1") == "incoming/berlin/night-1/manifest.json"
    assert keys.field_key("berlin", "night-1", "a/f.png") == "incoming/berlin/night-1/a/f.png"
    assert keys.report_key("berlin", "night-1") == "results/berlin/night-1/report.json"
    assert keys.notice_key("berlin", "night-1", "rejected") == "results/berlin/night-1/rejected.json"
    slide = keys.result_key("berlin", "night-1", keys.slide_file("a", "cells.geojson"))
    assert slide == "results/berlin/night-1/slides/a/cells.geojson"
    assert slide.startswith(keys.slides_prefix("berlin", "night-1"))
    assert keys.release_file_key("r1", "release.json") == "releases/r1/release.json"
    assert keys.probe_key() != keys.probe_key()


def test_a_manifests_key_is_read_as_it_was_made() -> None:
    assert keys.batch_of_manifest(keys.manifest_key("berlin", "night-1")) == ("berlin", "night-1")


@pytest.mark.parametrize(
    "key",
    [
        "incoming/berlin/manifest.json",
        "incoming/berlin/night-1/a/manifest.json",
        "incoming/berlin/night-1/manifest.jsonx",
        "incoming//night-1/manifest.json",
        "results/berlin/night-1/manifest.json",
        "incoming/berlin/night-1/f.png",
    ],
)
def test_another_key_is_not_read_as_a_manifests(key: str) -> None:
    assert keys.batch_of_manifest(key) is None


def test_no_other_module_makes_or_reads_a_key() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{line}: {what}"
        for room in ("services", "worker", "migrations", "triton_models")
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        if path != CHECKOUT / "services" / "keys.py"
        for line, what in made_keys(ast.parse(path.read_text()))
    ]
    assert found == []


def test_the_search_for_made_keys_finds_them() -> None:
    for source in (
        'key = f"incoming/{lab}/{batch}/manifest.json"',
        'store.stat("releases/")',
        'name = "report.json"',
        'key = f"{INCOMING}{lab}/"',
        "key = INCOMING + lab",
        'pattern = re.compile(r"results/[^/]+")',
        'out.print(f"files: results/{lab}/{batch}/")',
        "name = f\"slides/{slide['id']}/cells.geojson\"",
    ):
        assert list(made_keys(ast.parse(source))), source
    assert not list(made_keys(ast.parse('"""Lists `incoming/`."""\nhelp = "The one bucket: incoming/, results/."')))


def made_keys(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings that are a key or the beginning of one, and what is put together from the constants of `keys`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for piece, following in zip(node.values, [*node.values[1:], None], strict=True):
                text = piece.value if isinstance(piece, ast.Constant) else ""
                begun = re.search(rf"(^|\s){PREFIX.pattern}$", text) and following is not None
                if begun or (isinstance(piece, ast.FormattedValue) and _is_constant(piece.value)):
                    yield node.lineno, ast.unparse(node)
        elif (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Add)
            and (_is_constant(node.left) or _is_constant(node.right))
        ):
            yield node.lineno, ast.unparse(node)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (node.value in NAMES or re.fullmatch(rf"{PREFIX.pattern}\S*", node.value))
        ):
            yield node.lineno, node.value


def _is_constant(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in CONSTANTS
