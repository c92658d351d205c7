"""A revision holds all it needs: whatever it read from elsewhere could change its meaning afterwards."""

import ast
from pathlib import Path

import pytest

import migrations

REVISIONS = sorted((Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))


@pytest.mark.parametrize("revision", REVISIONS, ids=lambda path: path.stem)
def test_a_revision_reads_nothing_outside_itself(revision: Path) -> None:
    read = set()
    for node in ast.walk(ast.parse(revision.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            read |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            read.add((node.module or ".").split(".")[0] if node.level == 0 else ".")
        elif isinstance(node, ast.Name):
            read |= {node.id} & {"open", "__file__", "__import__", "eval", "exec", "compile"}
    assert read <= {"alembic", "sqlalchemy"}
