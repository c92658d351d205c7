"""Sentences that people meet are in plain English: phrases that had crept in do not come back; places named exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import CHECKOUT

PHRASES = {
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bis no valid\b": "is not a valid",
    r"\bone an? (class|cell|slide|room|run|worker|machine)\b": "one per …",
    r"\b(broken|broke) off,? the same\b": "if interrupted, rerun to resume",
    r"\b(is|are) needed\b": "is required",
    r"\bnot looked at without\b": "skipped: depends on",
    r"\btells no time\b": "sends no Date header",
}
ROOMS = ("services", "worker", "triton_models", "migrations")


def texts() -> Iterator[Path]:
    """Whatever of the project a person reads; a frozen revision keeps its words."""
    yield from (CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile"))
    yield from (CHECKOUT / "docs").rglob("*.md")
    for room in ROOMS:
        for suffix in ("*.py", "*.sql"):
            yield from (path for path in (CHECKOUT / room).rglob(suffix) if "versions" not in path.parts)


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_is_not_english_does_not_come_back(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == [], f"say: {PHRASES[phrase]}"


def test_places_that_the_documents_name_exist() -> None:
    named = re.compile(r"`((?:services|worker|triton_models|migrations|tests|requirements)/[\w./-]+)`")
    missing = [
        f"{page.relative_to(CHECKOUT)}: {place}"
        for page in (CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md"))
        for place in named.findall(page.read_text(encoding="utf-8"))
        if not (CHECKOUT / place).exists()
    ]
    assert missing == []
